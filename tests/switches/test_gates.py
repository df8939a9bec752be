"""What forced gates answer."""

from typing import Any

import torch

from flatguard.switches.gates import Gates, Place

SCORES = torch.tensor([[0.1, 0.9, 0.4], [0.8, 0.2, 0.3]])


def test_gates_are_seen_in_order_and_change_nothing_unless_forced() -> None:
    with Gates(2, 10, {}) as gates:
        bits, index = SCORES[:, 0] > 0.5, SCORES.argmax(dim=1)
    assert bits.tolist() == [False, True]
    assert index.tolist() == [1, 0]
    assert [gate.options for gate in gates.seen.values()] == [(0, 1), (0, 1, 2)]


def test_forced_results() -> None:
    def decide(options: list[int], places: list[Place]) -> tuple[list[Any], Gates]:
        forced = dict(zip(places, options, strict=True))
        with Gates(2, 10, forced) as gates:
            found = [
                SCORES[:, 0] > 0.5,
                SCORES.argmin(dim=1),
                SCORES.topk(2, dim=1).indices,
                SCORES.argsort(dim=1)[:, -1],
                SCORES.max(dim=1).values,
                SCORES[:, 0].sign(),
            ]
        return [each.tolist() for each in found], gates

    natural, gates = decide([], [])
    assert natural[1] == [0, 1]
    forced, _ = decide([1, 2, 1, 2, 0, -1], list(gates.seen))
    assert forced[0] == [True, True]
    assert forced[1] == [2, 2]
    assert [sorted(row) for row in forced[2]] == [[0, 2], [0, 2]]  # the second pair of three
    assert forced[3] == [2, 2]
    assert forced[4] == SCORES[:, 0].tolist()
    assert forced[5] == [-1.0, -1.0]


def test_large_results_are_no_gates() -> None:
    with Gates(2, 10, {}) as gates:
        _ = (
            torch.rand(2, 3, 8, 8) > 0.5,
            torch.rand(2, 40).topk(4, dim=1),
            torch.rand(2, 30).round(),
        )
    assert not gates.seen
