"""The user's own checkpoints: state dicts with an architecture, TorchScript, torch.export.

Code in a checkpoint runs only with `--allow-code`. The factory that `--arch` names is the user's
own code and always runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.environment.offline import last_refusal
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
from flatguard.targets.calls import make_ordinary
from flatguard.targets.target import Normalized, Target, make_target

SUFFIXES = (".safetensors", ".pt", ".pth", ".pt2")
_NESTING = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")


def load(
    path: Path,
    *,
    arch: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    allow_code: bool = False,
) -> Target:
    """A target from a file.

    Args:
        path: `.safetensors`, a `.pt`/`.pth` state dict or TorchScript file, or a `.pt2`.
        arch: `module:factory` or `file.py:factory`; the factory takes no arguments.
        mean: per channel, subtracted from images in [0, 1] before the model.
        std: per channel, the divisor after that.
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
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: expected one of {', '.join(SUFFIXES)}, got {path.suffix!r}")
    check_readable(path, ModelError)
    model, built = _module_from(path, arch, allow_code)
    if mean is not None and std is not None:
        training = model.training
        model = Normalized(model, mean, std)
        model.train(training)
    if arch is not None and not built:
        raise UsageError(f"--arch is for a file of weights; {path.name} holds a whole model")
    described = f"{path.name}{f' in {arch}' if arch else ''}"
    return make_target(model, path.stem, described)


@kept_state()
def _module_from(path: Path, arch: str | None, allow_code: bool) -> tuple[nn.Module, bool]:
    """The module, and whether `arch` was used to build it."""
    program = _program_kind(path)
    if program is not None:
        if not allow_code:
            raise UntrustedCodeError(
                f"{path} is {program}: it holds code that would run; save a state dict as "
                ".safetensors and name --arch, or type --allow-code if you trust the file"
            )
        return _load_program(path, program), False
    state = _read_state(path, allow_code)
    if isinstance(state, nn.Module):
        return state, False
    if arch is None:
        raise UsageError(
            f"{path} holds weights only: name their network with --arch module:factory"
        )
    model = build(arch)
    make_ordinary(model)
    _load_state(model, _state_dict_in(state, path), path, arch)
    # A new network is in training mode, which needs no note to the user.
    return model.eval(), True


def _program_kind(path: Path) -> str | None:
    if path.suffix == ".pt2":
        return "a torch.export program"
    try:
        if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
    except Exception as error:  # zipfile raises four kinds
        if refused(error):
            raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
        raise ModelError(f"{path} is damaged or truncated: {one_line(error)}") from error
    return "TorchScript" if any(n.startswith("code/") for n in names) else None


class Program(nn.Module):
    """Wraps a loaded program in an ordinary module, so that hooks observe its calls."""

    def __init__(self, program: Any):
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> Tensor:
        """The output of the program."""
        logits: Tensor = self.program(images)
        return logits

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
        module = Program(torch.export.load(str(path)).module())
        module.training = False
        for part in module.modules():
            part.training = False
        return module
    except Exception as error:  # a program's loader runs the program's own code
        raise ModelError(f"{path}: cannot load {kind}: {one_line(error)}") from error


def _read_state(path: Path, allow_code: bool) -> Any:
    if path.suffix == ".safetensors":
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


def _state_dict_in(state: Any, path: Path) -> dict[str, Tensor]:
    for _ in _NESTING:
        if not isinstance(state, Mapping):
            break
        inner = next((state[key] for key in _NESTING if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    if isinstance(state, nn.Module):
        state = state.state_dict()
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(
            f"{path}: expected a state dict, alone or under one of {', '.join(_NESTING)}; "
            f"got {type(state).__name__}"
        )
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors


def _load_state(model: nn.Module, state: dict[str, Tensor], path: Path, arch: str) -> None:
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in wanted]
    wrong = [
        f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or extra or wrong:
        parts = [
            f"{what}: {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
            for what, keys in (("missing", missing), ("unexpected", extra), ("wrong shape", wrong))
            if keys
        ]
        raise ModelError(f"{path.name} does not fit --arch {arch}; {'; '.join(parts)}")
    model.load_state_dict(state, strict=False)


@kept_state()
def build(arch: str) -> nn.Module:
    """The model from the factory that `module:factory` or `file.py:factory` names."""
    place, colon, name = arch.rpartition(":")
    if not colon or not place or not name.isidentifier():  # C:\\nets\\net.py contains a colon
        raise UsageError(f"--arch: expected module:factory or file.py:factory, got {arch!r}")
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module_of_name(place)
    factory = getattr(module, name, None)
    if not callable(factory):
        callables = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UsageError(
            f"--arch: {place} has no factory {name}; it has {', '.join(callables[:8])}"
        )
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        hint = "; it must take no arguments" if isinstance(error, TypeError) else last_refusal()
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"--arch {arch}: the factory fails: {what}{hint}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"--arch {arch}: expected an nn.Module, got {type(model).__name__}")
    return model


def _module_of_file(file: Path) -> Any:
    if not file.is_file():
        raise UsageError(f"--arch: no file {file}")
    spec = importlib.util.spec_from_file_location(f"flatguard_arch_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--arch: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader = spec.loader

    def run_it() -> Any:
        loader.exec_module(module)
        return module

    return _importing(run_it, str(file))


def _module_of_name(name: str) -> Any:
    # A console script does not search the current folder, which holds the user's code.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return _importing(lambda: importlib.import_module(name), name)


def _importing(load_module: Any, name: str) -> Any:
    try:
        return load_module()
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        raise UsageError(
            f"--arch: importing {name} fails: {type(error).__name__}: {one_line(error)}"
        ) from error
