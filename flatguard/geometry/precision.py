"""The floating-point type of all geometry."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_type(x: Tensor) -> torch.dtype:
    """float64, or float32 on Apple's MPS, which has no float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def wide(x: Tensor) -> Tensor:
    """`x` in its `wide_type`."""
    return x.to(wide_type(x))
