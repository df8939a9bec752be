"""Wrapped methods report their runs, pass everything on, and release the monitor."""

import gc
import weakref
from typing import Any

import torch
from support.segments import Listing

from flatguard.attacks.monitor import (
    NoMonitor,
    Segment,
    detached,
    watch,
    watch_individual,
)


class Searching:
    """An attack in the style of AutoAttack: `perturb` runs two restarts."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing

    def perturb(self, images: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
        return [self.attack_single_run(images, step=i) for i in range(2)]

    def attack_single_run(self, images: torch.Tensor, step: int) -> tuple[torch.Tensor, int]:
        assert self.listing.open == 1
        return images + step, step

    def other(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def run(self, model: Any, images: torch.Tensor, step: int = 0) -> torch.Tensor:
        return model(images) + step


def described(calls: int) -> Segment:
    return Segment("part", calls)


def test_runs_are_counted_from_the_start_of_perturb() -> None:
    listing, images = Listing(), torch.zeros(3)
    attack = Searching(listing)
    watch(listing, attack, "attack_single_run", described)
    for _ in range(2):
        assert [step for _, step in attack.perturb(images)] == [0, 1]
    assert [segment.restart for segment in listing.segments] == [0, 1, 0, 1]
    assert all(batch is images for batch in listing.batches)
    assert "attack_single_run" not in vars(Searching(listing))


def test_only_single_runs_guarantee_an_order() -> None:
    listing = Listing()
    attack = Searching(listing)
    watch(listing, attack, "other", described)
    attack.other(torch.zeros(3))
    assert listing.batches == [None]


def test_a_method_that_takes_the_model_first() -> None:
    listing = Listing()
    attack = Searching(listing)
    watch(listing, attack, "run", described)
    for step in range(3):
        assert attack.run(torch.exp, torch.zeros(1), step=step).tolist() == [1 + step]
    assert [segment.restart for segment in listing.segments] == [0, 1, 2]


def test_results_are_traced_to_their_clean_image() -> None:
    class Stepping:
        def step(self, image: torch.Tensor) -> tuple[bool, torch.Tensor]:
            return True, image + 1

    listing, attack = Listing(), Stepping()
    watch_individual(listing, attack, "step", Segment("step"))
    first, second = torch.zeros(2), torch.ones(2)
    _, moved = attack.step(first)
    _, other = attack.step(second)
    attack.step(moved)
    attack.step(other)
    shown = [batch.tolist() for batch in listing.batches if batch is not None]
    assert shown == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


def test_the_monitor_is_released_at_the_end() -> None:
    listing = Listing()
    gone = weakref.ref(listing)
    gc.disable()
    try:
        with detached(listing) as relay:
            with relay.segment(Segment("a"), None):
                assert listing.open == 1
            listing.segments.clear()
            del listing
        assert gone() is None
    finally:
        gc.enable()
    with relay.attack(), relay.segment(Segment("b"), None), NoMonitor().attack():
        pass
