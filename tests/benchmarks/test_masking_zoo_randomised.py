"""Labels of randomised pairs: looks choose the example, and fresh draws decide it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.masking_zoo import fingerprint, pair, pairs
from benchmarks.masking_zoo.randomised_labels import DECIDING, LAST, LOOK, BestOfDraws


class Coin(nn.Module):
    """Wrong with the probability that the first pixel says; one draw for the whole batch."""

    def __init__(self):
        super().__init__()
        self.alone = 0

    def forward(self, x):
        self.alone += len(x) == 1
        wrong = torch.rand(()) < x.flatten(1)[:, 0]
        return nn.functional.one_hot(wrong.long(), 2).float()


def survivors(*probabilities):
    torch.manual_seed(0)
    images = torch.tensor(probabilities).view(-1, 1, 1, 1)
    return BestOfDraws(Coin(), images, torch.zeros(len(images), dtype=torch.int64), True)


def look(shown, probabilities, attack="margin 1"):
    rows = shown.rows
    return shown.show(rows, torch.tensor(probabilities).view(-1, 1, 1, 1), attack)


def test_many_looks_fell_nobody_who_is_mostly_right():
    shown = survivors(*[0.4] * 40)
    for _ in range(50):
        look(shown, [0.4] * 40)
    look(shown, [0.4] * 40, LAST)
    assert len(shown.rows) >= 39  # P(a binomial(201, .4) is above half) is .002
    assert shown.model.alone == 40 * DECIDING


def test_the_best_example_of_all_looks_is_decided():
    shown = survivors(0.0, 0.0)
    assert look(shown, [0.3, 0.1]).tolist() == [False, False]
    look(shown, [0.7, 0.2])
    look(shown, [0.1, 0.3])
    assert look(shown, [0.0, 0.0], LAST).tolist() == [True, False]
    assert float(shown.best[0]) == pytest.approx(0.7)
    assert shown.fell_to == {LAST: 1}


def test_an_example_that_every_draw_gets_wrong_ends_the_search_at_once():
    shown = survivors(0.0, 0.0)
    assert look(shown, [1.0, 0.6]).tolist() == [True, False]
    assert shown.rows.tolist() == [1]
    assert shown.wrong[0] == LOOK
    assert shown.model.alone == 0


def test_every_randomised_pair_is_decided_by_fresh_draws_and_says_so_in_its_digest(monkeypatch):
    random = [one for one in pairs.CATALOGUE if one.random]
    assert random
    assert all(one.survivors is BestOfDraws for one in random)
    net = nn.Linear(4, 2)
    changed = []
    for kind in (False, True):
        one = pair.Pair("x", "digits", lambda n: n, "", (), pair.itself, n=5, random=kind)
        before = fingerprint.of_pair(one, net)
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "RANDOMISED", "deciding.py")
            changed.append(fingerprint.of_pair(one, net) != before)
    assert changed == [False, True]
