"""A model's answers to fixed images, which tell models of the same weights apart.

A value in a plain attribute, a closure or a global variable decides answers, and no hash of weights
covers it.
"""

from __future__ import annotations

import torch

from flatguard.environment.devices import device_of
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.errors import ModelError
from flatguard.targets.first_call import model_errors
from flatguard.targets.restored import restored
from flatguard.targets.target import Target

Answers = tuple[tuple[float, ...], ...]
"""Logits in six digits, `(n, k)`."""

_IMAGES = 4


@own_state()
def answers_to_noise(target: Target, shape: tuple[int, ...]) -> Answers | None:
    """The logits for a few images of uniform noise; None if two calls do not agree.

    Args:
        target: on any device; it is left as it was.
        shape: of one image, `(channels, height, width)`.
    """
    device = device_of(target.model)
    images = torch.rand(_IMAGES, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    logits = []
    with restored(target.model), torch.no_grad():
        for _ in range(2):
            try:
                with seeded(0, device), model_errors(target.name, "on noise"):
                    logits.append(target.model(images).double())
            except ModelError:  # the model may fail on images that are no pictures
                return None
    if not torch.equal(*logits) or not bool(logits[0].isfinite().all()):
        return None
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in logits[0].tolist())
