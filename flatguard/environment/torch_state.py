"""The settings of torch and NumPy that a process has, and that change results.

The caller of flatguard may have changed them: a notebook that switched gradients off, a test suite
with another default type, a script that allows TF32. Results must not depend on them. `own_state`
sets the values that flatguard computes with. `kept_state` surrounds third-party code. Both restore
all settings at the end, also after an error. The number of threads is no such setting: it is kept,
and the manifest records it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.backends import mha, opt_einsum  # `import torch` alone does not import both everywhere
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._device import DeviceContext

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """One setting: how to read and write it, and the value that flatguard computes with.

    That value is the one of a new process.
    """

    name: str
    own: Any
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _device() -> torch.device:
    return torch.empty(0).device  # torch 2.6 cannot report a default that was reset


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device == _CPU else device)
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, DeviceContext) and _device() != device:
            _leave(mode)


def _leave(mode: DeviceContext) -> None:
    """Take a device's context, which was entered and never left, off torch's stack."""
    stack = [_pop_mode() for _ in _get_current_function_mode_stack()]
    for each in reversed(stack):
        if each is not mode:
            _push_mode(each)


def _deterministic() -> tuple[bool, bool]:
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warns


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _anomalies() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _set_anomalies(value: tuple[bool, bool]) -> None:
    torch.set_anomaly_enabled(*value)


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by backend, which `_by_backend` reads
        return "highest"


def _cudnn_tf32() -> bool:
    try:
        return bool(torch._C._get_cudnn_allow_tf32())
    except RuntimeError:
        return True


def _set_numpy_errors(value: dict[str, Any]) -> None:
    np.seterr(**value)


def _set_einsum(value: bool) -> None:
    opt_einsum.enabled = value


def _autocast(device: str, dtype: torch.dtype) -> list[Setting]:
    return [
        Setting(
            f"autocast on {device}",
            False,
            lambda: torch.is_autocast_enabled(device),
            lambda value: torch.set_autocast_enabled(device, value),
        ),
        Setting(
            f"autocast's type on {device}",
            dtype,
            lambda: torch.get_autocast_dtype(device),
            lambda value: torch.set_autocast_dtype(device, value),
        ),
    ]


def _by_backend() -> list[Setting]:
    """The precision of float32 arithmetic by backend, which torch has from 2.9 on.

    A backend inherits what is not set, so the more general one comes first.
    """
    if not hasattr(torch._C, "_get_fp32_precision_getter"):
        return []
    own = {("cuda", "conv"): "tf32", ("cuda", "rnn"): "tf32"}
    places = [("generic", "all")]
    for backend in ("cuda", "mkldnn"):
        places += [(backend, operation) for operation in ("all", "matmul", "conv", "rnn")]
    return [_precision(*place, own.get(place, "none")) for place in places]


def _precision(backend: str, operation: str, own: str) -> Setting:
    return Setting(
        f"precision of {backend} {operation}",
        own,
        lambda: torch._C._get_fp32_precision_getter(backend, operation),
        lambda value: torch._C._set_fp32_precision_setter(backend, operation, value),
    )


def _attention(name: str) -> Setting:
    cuda = torch.backends.cuda
    return Setting(
        f"{name} attention",
        True,
        getattr(cuda, f"{name}_sdp_enabled"),
        getattr(cuda, f"enable_{name}_sdp"),
    )


SETTINGS: tuple[Setting, ...] = (
    Setting("gradients", True, torch.is_grad_enabled, torch.set_grad_enabled),
    *_autocast("cpu", torch.bfloat16),
    *_autocast("cuda", torch.float16),
    Setting(
        "autocast's cache",
        True,
        torch.is_autocast_cache_enabled,
        torch.set_autocast_cache_enabled,
    ),
    Setting("default type", torch.float32, torch.get_default_dtype, torch.set_default_dtype),
    Setting("default device", _CPU, _device, _set_device),
    Setting("deterministic algorithms", (False, False), _deterministic, _set_deterministic),
    Setting("detection of anomalies", (False, True), _anomalies, _set_anomalies),
    Setting(
        "precision of matmul", "highest", _matmul_precision, torch.set_float32_matmul_precision
    ),
    Setting("TF32 in cuDNN", True, _cudnn_tf32, torch._C._set_cudnn_allow_tf32),
    *_by_backend(),
    Setting("cuDNN", True, torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled),
    Setting(
        "cuDNN's benchmark", False, torch._C._get_cudnn_benchmark, torch._C._set_cudnn_benchmark
    ),
    Setting(
        "deterministic cuDNN",
        False,
        torch._C._get_cudnn_deterministic,
        torch._C._set_cudnn_deterministic,
    ),
    Setting("oneDNN", True, torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    *(_attention(name) for name in ("flash", "mem_efficient", "math", "cudnn")),
    Setting(
        "fast path of attention",
        True,
        mha.get_fastpath_enabled,
        mha.set_fastpath_enabled,
    ),
    Setting(
        "order of einsum",
        opt_einsum.is_available(),
        lambda: opt_einsum.enabled,
        _set_einsum,
    ),
    Setting(
        "NumPy's errors",
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
        np.geterr,
        _set_numpy_errors,
    ),
)
"""All settings, in the order in which they are written."""


@dataclass(frozen=True)
class TorchState:
    """The settings of this process and thread.

    Attributes:
        values: one for each of `SETTINGS`.
    """

    values: tuple[Any, ...]

    @classmethod
    def now(cls) -> TorchState:
        """The current settings."""
        return cls(tuple([setting.read() for setting in SETTINGS]))

    def apply(self) -> None:
        """Set every setting that differs."""
        now = TorchState.now()
        if now == self:
            return
        for setting, value, wanted in zip(SETTINGS, now.values, self.values, strict=True):
            if value != wanted:
                setting.write(wanted)
        if TorchState.now() != self:  # one setting may have changed another that was written before
            for setting, wanted in zip(SETTINGS, self.values, strict=True):
                if setting.read() != wanted:
                    setting.write(wanted)


OWN = TorchState(tuple(setting.own for setting in SETTINGS))
"""The settings of a new process, which flatguard computes with."""


@contextmanager
def own_state() -> Iterator[None]:
    """Compute with `OWN` and outside of inference mode; restores the settings at the end.

    Also a decorator. Reentrant. Costs about 20 µs.

    Example:
        >>> with torch.no_grad(), own_state():
        ...     torch.is_grad_enabled()
        True
    """
    before = TorchState.now()
    elsewhere = nullcontext() if _device() == _CPU else _CPU
    try:
        with elsewhere, torch.inference_mode(False):
            if before != OWN:
                OWN.apply()
            yield
    finally:
        before.apply()


@contextmanager
def unobserved() -> Iterator[None]:
    """Compute unseen by the caller's modes of torch functions (`TorchFunctionMode`).

    Such a mode may replace operations, as straight-through gradients do. Not around calls of a
    model: its own modes are passed over, too.
    """
    with torch._C.DisableTorchFunction():
        yield


@contextmanager
def kept_state() -> Iterator[None]:
    """Run third-party code with the current settings, and undo its changes of them.

    Also a decorator. The number of threads is restored, too.

    Example:
        >>> with kept_state():
        ...     _ = torch.set_grad_enabled(False)
        >>> torch.is_grad_enabled()
        True
    """
    before, threads = TorchState.now(), torch.get_num_threads()
    try:
        # This also ends an inference mode that the code entered and never left.
        with torch.inference_mode(torch.is_inference_mode_enabled()):
            before.apply()
            yield
    finally:
        before.apply()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
