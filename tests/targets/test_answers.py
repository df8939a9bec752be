"""Answers to noise tell models of the same weights apart, and asking changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flatguard.environment.randomness import preserved
from flatguard.runs.facts import same_answers
from flatguard.targets import Target
from flatguard.targets.answers import answers_to_noise
from flatguard.targets.target import make_target

SHAPE = (1, 4, 4)


class Asked(nn.Module):
    """Counts its calls; `noise` is drawn globally, `own` from a generator of the model."""

    def __init__(self, scale: float = 1.0, noise: float = 0.0, own: float = 0.0):
        super().__init__()
        self.layer, self.scale, self.noise, self.own = nn.Linear(16, 3), scale, noise, own
        self.generator, self.calls = torch.Generator().manual_seed(1), 0
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        drawn = self.noise * torch.rand(()) + self.own * torch.rand((), generator=self.generator)
        logits: Tensor = self.layer(images.flatten(1) * self.scale + drawn)
        return logits


def asked(**how: float) -> Target:
    return make_target(Asked(**how).eval(), "asked", "here")


def test_other_numbers_give_other_answers() -> None:
    one = answers_to_noise(asked(), SHAPE)
    assert one is not None
    assert len(one[0]) == 3
    assert one == answers_to_noise(asked(), SHAPE)
    assert same_answers(one, answers_to_noise(asked(scale=1.0001), SHAPE))  # as on another device
    assert not same_answers(one, answers_to_noise(asked(scale=1.1), SHAPE))
    assert not same_answers(one, None)


def test_what_is_drawn_globally_is_seeded_and_the_rest_is_not_repeatable() -> None:
    assert answers_to_noise(asked(noise=1.0), SHAPE) is not None
    assert answers_to_noise(asked(own=1.0), SHAPE) is None
    assert answers_to_noise(asked(scale=float("nan")), SHAPE) is None
    assert answers_to_noise(asked(), (3, 9, 9)) is None  # the model fails on them


def test_asking_leaves_the_model_and_the_generators() -> None:
    target = asked(noise=1.0, own=1.0)
    held = target.model
    assert isinstance(held, Asked)
    with preserved(torch.device("cpu")), torch.no_grad():
        torch.manual_seed(5)
        place, own = torch.get_rng_state(), held.generator.get_state()
        answers_to_noise(target, SHAPE)
        assert torch.equal(torch.get_rng_state(), place)
        assert torch.equal(held.generator.get_state(), own)
    assert held.calls == 0
