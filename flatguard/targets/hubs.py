"""Models that libraries download or read from a cache: what may go wrong, as one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flatguard.environment.network import bounded_sockets, cached_only, unreachable
from flatguard.environment.pickles import check_pickle, pickle_code
from flatguard.environment.torch_state import kept_state
from flatguard.errors import EnvironmentProblem, FlatguardError, ModelError, one_line

Built = TypeVar("Built")
_ON_DISK = "a folder is read without the network"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".tar")


def from_hub(
    build: Callable[[], Built], name: str, host: str, allow_code: bool | None = None
) -> Built:
    """Build with cached weights, or with downloaded ones if the network can be reached.

    Args:
        build: loads the model.
        name: of the model, for messages.
        host: where the library downloads from.
        allow_code: whether files may run code; None leaves it to the library.

    Raises:
        EnvironmentProblem: nothing in the cache, and why the network did not help.
    """
    why = unreachable(host)
    try:
        with (
            kept_state(),
            contextlib.redirect_stdout(sys.stderr),
            cached_only(why),
            bounded_sockets(),
            pickle_code(allow_code),
        ):
            return build()
    except FlatguardError:
        raise
    except Exception as error:  # hubs raise their own trees
        reason = why or f"{type(error).__name__}: {one_line(error)}"
        raise EnvironmentProblem(
            f"no pretrained weights for {name} in the cache, and {reason}; "
            "or give its folder, or a checkpoint file with --arch"
        ) from error


def from_folder(build: Callable[[], Built], name: str, folder: Path) -> Built:
    """Build from the files of a folder, without the network and without code in them.

    Args:
        build: loads the model.
        name: of the model, for messages.
        folder: its pickled files are checked first.

    Raises:
        ModelError: the folder does not hold what is needed; what is wrong.
        UntrustedCodeError: a file would run code.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in _PICKLED and file.is_file():
            check_pickle(file)
    try:
        with kept_state(), cached_only(_ON_DISK), pickle_code(False):
            return build()
    except FlatguardError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name} cannot be loaded: {type(error).__name__}: {one_line(error)}"
        ) from error


def folder_of(name: str) -> Path | None:
    """The local folder that a name means, or None for a name on a hub.

    Raises:
        ModelError: the name is a path, and there is no such folder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{name}: expected a folder with a model and its config, got a file")
    is_path = name.startswith((".", "~", "/", "\\")) or "\\" in name or name.count("/") > 1
    if is_path or name.endswith("/"):
        raise ModelError(f"no folder {name}")
    return None
