"""The user's own checkpoints: state dicts with an architecture, TorchScript, torch.export.

Code in a checkpoint runs only with `--allow-code`. The factory that `--arch` names is the user's
own code and always runs.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flatguard.environment.pickles import check_pickle, names_in_pickle, pickle_code, runs_code
from flatguard.environment.torch_state import kept_state
from flatguard.errors import (
    ModelError,
    UntrustedCodeError,
    UsageError,
    one_line,
    refused,
)
from flatguard.targets.architecture import build
from flatguard.targets.calls import make_ordinary
from flatguard.targets.file_kinds import AGAIN, refuse_other_files
from flatguard.targets.neighbours import imports_of
from flatguard.targets.normalized import Normalized
from flatguard.targets.programs import load_program, program_kind
from flatguard.targets.shards import INDEX, Shards, shards_of
from flatguard.targets.target import Target, make_target
from flatguard.targets.weights import Loaded, find_weights, load_weights, without_weights

SUFFIXES = (".safetensors", ".pt", ".pth", ".pt2", ".tar", ".ckpt", ".bin")
"""A name that ends in one of these is a file, also where there is none. What a file is, its first
bytes show."""


def load(
    path: Path,
    *,
    arch: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    weights_key: str | None = None,
    allow_code: bool = False,
) -> Target:
    """A target from a file.

    Args:
        path: safetensors; a state dict of torch, alone or in a larger checkpoint; TorchScript; or
            a program of torch.export. Its content decides which, not its name. An index of shards,
            one of several shards, or a folder stands for all files of a checkpoint.
        arch: `module:factory` or `file.py:factory`; the factory takes no arguments.
        mean: per channel, subtracted from images in [0, 1] before the model.
        std: per channel, the divisor after that.
        weights_key: which of several sets of weights in the file; None takes the usual one.
        allow_code: load files that run code when they are loaded.

    Raises:
        ModelError: missing, damaged, or not for this architecture (which keys).
        UntrustedCodeError: the file would run code.
        UsageError: `arch` is missing or does not name a factory; `mean` without `std`.
    """
    if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)):
        raise UsageError("--mean and --std go together, one number a channel each")
    if std and min(std) <= 0:
        raise UsageError("--std: expected positive numbers")
    shards = shards_of(path, SUFFIXES)
    model, loaded = _module_from(shards, arch, weights_key, allow_code)
    if mean is not None and std is not None:
        training = model.training
        model = Normalized(model, mean, std)
        model.train(training)
    if (arch is not None or weights_key is not None) and loaded is None:
        option = "--arch" if arch is not None else "--weights-key"
        raise UsageError(f"{option} is for a file of weights; {path.name} holds a whole model")
    key = f" ({loaded.key})" if loaded is not None and loaded.key else ""
    described = f"{_described(path, shards)}{key}{f' in {arch}' if arch else ''}"
    target = make_target(model, name_of(path), described)
    return target if loaded is None else replace(target, notes=(*target.notes, *loaded.notes))


def name_of(path: Path) -> str:
    """The name of a model in a file: `best` for `best.pth.tar`."""
    name = path.name.removesuffix(INDEX)
    while Path(name).suffix in SUFFIXES and Path(name).stem:
        name = Path(name).stem
    return name or path.resolve().name


def _described(path: Path, shards: Shards) -> str:
    given = path.name or path.resolve().name
    if len(shards.files) > 1:
        return f"{given}, {len(shards.files)} shards"
    return f"{given}/{shards.name}" if path.is_dir() else given


@kept_state()
def _module_from(
    shards: Shards, arch: str | None, weights_key: str | None, allow_code: bool
) -> tuple[nn.Module, Loaded | None]:
    """The module, and which weights it has where `arch` built it."""
    path = shards.files[0]
    kinds = [_kind_of(file) for file in shards.files]
    program = kinds[0]
    if program is not None:
        if not allow_code:
            raise UntrustedCodeError(
                f"{path} is {program}: it holds code that would run; save a state dict as "
                ".safetensors and name --arch, or type --allow-code if you trust the file"
            )
        return load_program(path, program), None
    state = shards.joined([_read_state(file, allow_code) for file in shards.files])
    if isinstance(state, nn.Module):
        return state, None
    if arch is None:
        raise UsageError(
            f"{path} holds weights only: name their network with --arch module:factory"
        )
    found = find_weights(state)
    if not found:
        raise ModelError(
            f"{path}: expected a state dict, alone or inside a dictionary; got "
            f"{without_weights(state)}"
        )
    model = build(arch)
    make_ordinary(model)
    with imports_of(model):
        loaded = load_weights(model, found, weights_key, shards.name, arch)
        # A new network is in training mode, which needs no note to the user.
        return model.eval(), loaded


def _kind_of(path: Path) -> str | None:
    """TorchScript or torch.export, in words; None for a file of weights.

    Raises:
        ModelError: the file is no checkpoint, and says what it is.
    """
    try:
        if _is_safetensors(path):
            return None
        refuse_other_files(path)
        if path.suffix == ".safetensors" and not zipfile.is_zipfile(path):
            _refuse_cut_header(path)
        return program_kind(path)
    except ModelError:
        raise
    except Exception as error:  # zipfile raises four kinds
        if refused(error):
            raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
        raise _damaged(path, one_line(error)) from error


def _is_safetensors(path: Path) -> bool:
    """Whether the first bytes are the length of a header, and the header begins."""
    with path.open("rb") as stream:
        length, brace = stream.read(8), stream.read(1)
    return brace == b"{" and int.from_bytes(length, "little") < path.stat().st_size


def _refuse_cut_header(path: Path) -> None:
    with path.open("rb") as stream:
        begins = stream.read(9)
    if len(begins) < 9 or begins.endswith(b"{"):
        raise _damaged(path, f"it ends in its header, after {path.stat().st_size:,} bytes")


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is damaged or truncated: {why}; {AGAIN}")


def _read_state(path: Path, allow_code: bool) -> Any:
    if _is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            if refused(error):
                raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
            raise _damaged(path, one_line(error)) from error
    if not allow_code:
        check_pickle(path)
    try:
        with warnings.catch_warnings(), pickle_code(allow_code):
            warnings.simplefilter("ignore", UserWarning)  # about the pickle's protocol
            with path.open("rb") as stream:  # by its name, torch takes some for safetensors
                return torch.load(stream, map_location="cpu", weights_only=not allow_code)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise ModelError(
                f"{path} is damaged or truncated, or no checkpoint; {AGAIN}"
            ) from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        names = [*([named.group(1)] if named else []), *names_in_pickle(path)]
        if not names and re.search(r"[Uu]nsupported operand|protocol", str(error)):
            raise UntrustedCodeError(
                f"{path} is a pickle of a protocol that can run code when it is loaded; save a "
                "state dict again with torch.save, without pickle_protocol, or type --allow-code "
                "if you trust the file"
            ) from error
        raise runs_code(path, names) from error
    except Exception as error:  # with allow_code, whatever the file's own code raises
        if refused(error):
            raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(
            f"{path} is damaged or truncated, or no checkpoint: {what}; {AGAIN}"
        ) from error
