"""The geometry is computed in float64, except on devices without it."""

import torch

from flatguard.geometry.precision import wide, wide_type


def test_everything_becomes_float64() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert wide(torch.ones(2, dtype=dtype)).dtype == torch.float64
    exact = torch.ones(2, dtype=torch.float64)
    assert wide(exact) is exact


def test_mps_has_no_float64() -> None:
    class OnMps:
        device = torch.device("mps")

    assert wide_type(OnMps()) == torch.float32
