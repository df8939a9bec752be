"""The floating-point type that the geometry is computed in."""

from __future__ import annotations

from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in float64; on Apple's MPS, which has none, in float32."""
    return x.float() if x.device.type == "mps" else x.double()
