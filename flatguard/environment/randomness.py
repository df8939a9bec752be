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
        seed_all(seed, device)
        yield


def seed_all(seed: int, device: torch.device) -> None:
    """Start all three generators with this seed; inside `preserved`."""
    if device.type == "cpu":  # the seeds of other devices cost half a millisecond
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def own_generators() -> Iterator[None]:
    """Start all generators, also those of every GPU, with one seed; restore them at the end.

    For the entry points: what is drawn without a seed of its own does not depend on the caller.
    """
    initialised, seed = torch.cuda.is_initialized(), torch.initial_seed()
    before_numpy, before_random = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if initialised else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            yield
    finally:
        np.random.set_state(before_numpy)
        random.setstate(before_random)
        if not initialised:  # the caller's seed for CUDA waits until CUDA is used
            torch.cuda.manual_seed_all(seed)
