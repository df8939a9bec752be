"""What torch computes with beside its arguments: gradients, autocast, default type and device.

All of it belongs to the process, and whoever calls flatguard may have changed it: a notebook that
switched gradients off, a test suite that set another default type. Numbers must not depend on that.
`own_state` sets what flatguard computes with. `kept_state` surrounds somebody else's code. Both put
everything back, whatever happens inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

_AUTOCAST = ("cpu", "cuda")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TorchState:
    """The settings of this process and thread.

    Attributes:
        gradients: whether operations are recorded for a backward pass.
        autocast: of each of `_AUTOCAST`, whether operations change their types.
        dtype: of floating-point tensors that are made without one.
        device: of tensors that are made without one.
    """

    gradients: bool
    autocast: tuple[bool, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def now(cls) -> TorchState:
        """As it is at this moment."""
        return cls(
            torch.is_grad_enabled(),
            tuple(torch.is_autocast_enabled(device) for device in _AUTOCAST),
            torch.get_default_dtype(),
            torch.empty(0).device,  # torch 2.6 cannot name a default that was taken back
        )

    def apply(self) -> None:
        """Set what is otherwise now."""
        now = TorchState.now()
        if now == self:
            return
        if now.gradients != self.gradients:
            torch.set_grad_enabled(self.gradients)
        for name, before, wanted in zip(_AUTOCAST, now.autocast, self.autocast, strict=True):
            if before != wanted:
                torch.set_autocast_enabled(name, wanted)
        if now.dtype != self.dtype:
            torch.set_default_dtype(self.dtype)
        if now.device != self.device:
            torch.set_default_device(None if self.device == _CPU else self.device)


OWN = TorchState(True, tuple(False for _ in _AUTOCAST), torch.float32, _CPU)
"""What flatguard computes with: the state of a fresh process."""


@contextmanager
def own_state() -> Iterator[None]:
    """Compute with `OWN` and outside of inference mode; the state before is put back.

    Also a decorator. Costs about 10 µs, and may be entered again inside.

    Example:
        >>> with torch.no_grad(), own_state():
        ...     torch.is_grad_enabled()
        True
    """
    before = TorchState.now()
    elsewhere = nullcontext() if before.device == _CPU else _CPU
    try:
        with elsewhere, torch.inference_mode(False):
            if before != OWN:
                OWN.apply()
            yield
    finally:
        before.apply()


@contextmanager
def kept_state() -> Iterator[None]:
    """Run somebody else's code in the state that is now; what it switches is put back.

    Also a decorator.

    Example:
        >>> with kept_state():
        ...     _ = torch.set_grad_enabled(False)
        >>> torch.is_grad_enabled()
        True
    """
    before = TorchState.now()
    try:
        # Its end also ends an inference mode that was entered inside and never left.
        with torch.inference_mode(torch.is_inference_mode_enabled()):
            before.apply()
            yield
    finally:
        before.apply()
