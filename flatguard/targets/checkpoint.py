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
from torch import Tensor, nn

from flatguard.environment.pickles import check_pickle, pickle_code
from flatguard.environment.torch_state import kept_state
from flatguard.errors import (
    ModelError,
    UntrustedCodeError,
    UsageError,
    check_readable,
    one_line,
    refused,
)
from flatguard.targets.architecture import build
from flatguard.targets.calls import make_ordinary
from flatguard.targets.neighbours import imports_of
from flatguard.targets.target import Normalized, Target, make_target
from flatguard.targets.weights import Loaded, find_weights, load_weights

SUFFIXES = (".safetensors", ".pt", ".pth", ".pt2", ".tar", ".ckpt", ".bin")
"""A name that ends in one of these is a file, also where there is none. What a file is, its first
bytes show."""

_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; git lfs pull gets the file",
    b"\x89HDF": "an HDF5 file of Keras or TensorFlow; convert its weights",
    b"GGUF": "a GGUF file of a language model",
    b"\x93NUMPY": "an array of NumPy",
    b"<": "a page of the web, and no download",
}
"""What people take for a checkpoint, by its first bytes."""

_EXPORTED = ("serialized_exported_program.json", "archive_format")
"""Files in an archive of torch.export; newer ones have a folder `models`."""


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
            a program of torch.export. Its content decides which, not its name.
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
    if not path.is_file():
        raise ModelError(f"no file {path}; a model is a name or the path of a checkpoint")
    check_readable(path, ModelError)
    model, loaded = _module_from(path, arch, weights_key, allow_code)
    if mean is not None and std is not None:
        training = model.training
        model = Normalized(model, mean, std)
        model.train(training)
    if (arch is not None or weights_key is not None) and loaded is None:
        option = "--arch" if arch is not None else "--weights-key"
        raise UsageError(f"{option} is for a file of weights; {path.name} holds a whole model")
    key = f" ({loaded.key})" if loaded is not None and loaded.key else ""
    described = f"{path.name}{key}{f' in {arch}' if arch else ''}"
    target = make_target(model, path.stem, described)
    return target if loaded is None else replace(target, notes=(*target.notes, *loaded.notes))


@kept_state()
def _module_from(
    path: Path, arch: str | None, weights_key: str | None, allow_code: bool
) -> tuple[nn.Module, Loaded | None]:
    """The module, and which weights it has where `arch` built it."""
    program = _program_kind(path)
    if program is not None:
        if not allow_code:
            raise UntrustedCodeError(
                f"{path} is {program}: it holds code that would run; save a state dict as "
                ".safetensors and name --arch, or type --allow-code if you trust the file"
            )
        return _load_program(path, program), None
    state = _read_state(path, allow_code)
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
            f"{type(state).__name__} without one"
        )
    model = build(arch)
    make_ordinary(model)
    with imports_of(model):
        loaded = load_weights(model, found, weights_key, path.name, arch)
        # A new network is in training mode, which needs no note to the user.
        return model.eval(), loaded


def _program_kind(path: Path) -> str | None:
    try:
        _refuse_other_files(path)
        if _is_safetensors(path) or not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
    except ModelError:
        raise
    except Exception as error:  # zipfile raises four kinds
        if refused(error):
            raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
        raise ModelError(f"{path} is damaged or truncated: {one_line(error)}") from error
    if any(name.startswith("code/") for name in names):
        return "TorchScript"
    exported = any(name in _EXPORTED or name.startswith("models/") for name in names)
    return "a torch.export program" if exported else None


def _refuse_other_files(path: Path) -> None:
    with path.open("rb") as stream:
        begins = stream.read(64).lstrip()
    for first, what in _OTHER_FILES.items():
        if begins.startswith(first):
            raise ModelError(f"{path} is no checkpoint: it is {what}")


def _is_safetensors(path: Path) -> bool:
    """Whether the first bytes are the length of a header, and the header begins."""
    with path.open("rb") as stream:
        length, brace = stream.read(8), stream.read(1)
    known = brace == b"{" and int.from_bytes(length, "little") < path.stat().st_size
    return known or path.suffix == ".safetensors"


_MOST_IMAGES = 1 << 20
"""A larger bound of a batch is none."""


class Program(nn.Module):
    """Wraps a loaded program in an ordinary module, so that hooks observe its calls.

    Args:
        program: of TorchScript or torch.export.
        batches: the smallest and the largest batch that it takes; None takes any. A larger batch is
            cut into parts, and a smaller one is filled up with its last image.
    """

    def __init__(self, program: Any, batches: tuple[int, int] | None = None):
        super().__init__()
        self.program, self.batches = program, batches

    def forward(self, images: Tensor) -> Tensor:
        """The output of the program."""
        least, most = self.batches or (0, max(1, len(images)))
        return torch.cat([self._part(part, least) for part in images.split(most)])

    def _part(self, images: Tensor, least: int) -> Tensor:
        if len(images) >= least:
            logits: Tensor = self.program(images)
            return logits
        more = images[-1:].expand(least - len(images), *images.shape[1:])
        logits = self.program(torch.cat([images, more]))
        return logits[: len(images)]

    def train(self, mode: bool = True) -> Program:
        """Switch the mode of a TorchScript program; that of an exported program is fixed."""
        self.training = mode
        if isinstance(self.program, torch.jit.ScriptModule):
            self.program.train(mode)
        return self


def _load_program(path: Path, kind: str) -> nn.Module:
    try:
        if kind == "TorchScript":
            return Program(torch.jit.load(str(path), map_location="cpu"))
        exported = torch.export.load(str(path))
        module = Program(exported.module(), _batches_of(exported))
        module.training = False
        for part in module.modules():
            part.training = False
        return module
    except Exception as error:  # a program's loader runs the program's own code
        raise ModelError(f"{path}: cannot load {kind}: {one_line(error)}") from error


def _batches_of(exported: Any) -> tuple[int, int] | None:
    """The smallest and largest batch that an exported program takes; None if it takes any."""
    inputs = exported.graph_signature.user_inputs
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            size = node.meta["val"].shape[0]
            if type(size) is int:
                return size, size
            limits = exported.range_constraints.get(size.node.expr)
            if limits is None:
                return None
            most = int(limits.upper) if limits.upper < _MOST_IMAGES else _MOST_IMAGES
            return max(1, int(limits.lower)), most
    return None


def _read_state(path: Path, allow_code: bool) -> Any:
    if _is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            what = "cannot be read" if refused(error) else "is damaged or truncated"
            raise ModelError(f"{path} {what}: {one_line(error)}") from error
    if not allow_code:
        check_pickle(path)
    try:
        with warnings.catch_warnings(), pickle_code(allow_code):
            warnings.simplefilter("ignore", UserWarning)  # about the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=not allow_code)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise ModelError(f"{path} is damaged or truncated, or no checkpoint") from error
        raise UntrustedCodeError(
            f"{path} is a pickle that runs code when it is loaded ({_culprit(error)}); save a "
            "state dict as .safetensors, or type --allow-code if you trust the file"
        ) from error
    except Exception as error:  # with allow_code, whatever the file's own code raises
        if refused(error):
            raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(f"{path} is damaged or truncated, or no checkpoint: {what}") from error


def _culprit(error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it asks for {named.group(1)}" if named else "it holds more than tensors"
