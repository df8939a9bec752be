"""Seeds and restores the three random number generators: torch, NumPy and `random`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Restore the states of torch's, NumPy's and `random`'s generators at the end."""
    before_numpy, before_random = np.random.get_state(), random.getstate()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(before_numpy)
            random.setstate(before_random)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """As `preserved`, and all three generators start with this seed."""
    with preserved(device):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
