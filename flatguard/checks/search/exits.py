"""Whether values that leave torch, through NumPy or as Python numbers, come back into the logits.

A model may also look at its images in NumPy for another purpose, such as a key for its memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from flatguard.twins.straight_through import LEAVING, name_of

_SEEN = 1e-5
"""A change of the logits by this share of their size is no rounding."""


def exits_matter(model: nn.Module, images: Tensor) -> bool:
    """Whether the logits change where everything that leaves torch is disturbed.

    The noise is as large as the values' own spread, and drawn from torch's generator.

    Args:
        model: in eval mode.
        images: a few.

    Cost: two forward passes.
    """
    with torch.no_grad():
        state = torch.get_rng_state()
        usual = model(images)
        torch.set_rng_state(state)
        with _Disturbed():
            disturbed = model(images)
    if usual.shape != disturbed.shape:
        return True
    return bool((disturbed - usual).abs().max() > _SEEN * usual.abs().max())


class _Disturbed(TorchFunctionMode):
    """Adds noise to every floating-point tensor that leaves torch."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """One operation of the model."""
        own = args[0] if args and isinstance(args[0], Tensor) else None
        if name_of(func) in LEAVING and own is not None and own.is_floating_point():
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(own.shape, generator=generator).to(own)
            spread = own.std() if own.numel() > 1 else own.abs()
            args = (own + noise * spread.clamp_min(1e-3), *args[1:])
        return func(*args, **(kwargs or {}))
