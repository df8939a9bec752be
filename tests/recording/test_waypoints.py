"""A few images along an attack: evenly spaced, bounded, and only those that are asked for."""

from itertools import pairwise

import torch

from flatguard.recording.waypoints import POINTS, Waypoints


def calls_kept(total: int) -> list[int]:
    way = Waypoints(1)
    for call in range(total):
        way.add(call, [1, 0], torch.full((2, 3), float(call)))
    assert all((point.image == point.call).all() for point in way.of(0))
    return [point.call for point in way.of(0)]


def test_short_attacks_are_kept_whole() -> None:
    assert calls_kept(4) == [0, 1, 2, 3]


def test_long_attacks_are_thinned_evenly() -> None:
    assert calls_kept(7) == [0, 2, 4, 6]
    for total in range(1, 300):
        kept = calls_kept(total)
        assert len(kept) <= POINTS
        assert len({b - a for a, b in pairwise(kept)}) <= 1
        assert kept[0] == 0
        assert total < 7 or kept[-1] >= total // 2


def test_rows_that_belong_to_no_sample_are_not_kept() -> None:
    way = Waypoints(2)
    way.add(0, [-1, 1, 1], torch.arange(3.0)[:, None])
    assert way.of(0) == []
    assert [(p.call, p.image.item()) for p in way.of(1)] == [(0, 1.0)]


def test_what_is_kept_does_not_change_with_the_attacks_tensor() -> None:
    way, rows = Waypoints(1), torch.zeros(1, 2)
    way.add(0, [0], rows)
    rows += 1
    assert way.of(0)[0].image.sum() == 0
