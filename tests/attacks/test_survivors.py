"""Only samples that survive go forward, and what was seen of each is kept."""

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from flatguard.attacks.monitor import NoMonitor
from flatguard.attacks.survivors import Images, NothingLeftError, Survivors
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget

EPS = Budget("Linf", 0.2)


class Sum(nn.Module):
    """Class 1 where the pixels sum up to more than 2; counts the rows that it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.rows.append(len(images))
        total = images.flatten(1).sum(dim=1)
        return torch.stack([2 - total, total - 2, total - 9], dim=1)


def batch(*pixels: float) -> Images:
    images = torch.tensor(pixels).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    return Images(images, torch.zeros(len(pixels), dtype=torch.long))


def test_a_fooled_sample_is_not_asked_about_again() -> None:
    model, clean = Sum(), batch(0.4, 0.1, 0.6)
    found = Survivors(model, clean, EPS, NoMonitor())
    assert found.surviving.tolist() == [0, 1]  # the third is wrong from the start
    found.begin(found.surviving)
    found(clean.images[:2] + 0.15)
    assert found.fooled.tolist() == [True, False, True]
    images = (clean.images[:2] + 0.1).requires_grad_()
    answer = found(images)
    assert model.rows == [3, 2, 1]
    assert answer[0].argmax() != 0
    assert answer[1].argmax() == 0
    (gradient,) = torch.autograd.grad(answer[:, 0].sum(), images)
    assert not gradient[0].any()
    assert gradient[1].all()


def test_a_point_outside_the_budget_fools_nobody() -> None:
    clean = batch(0.4)
    found = Survivors(Sum(), clean, EPS, NoMonitor())
    found(clean.images + 0.4)
    assert not found.fooled.any()
    assert torch.equal(found.points, clean.images)
    found(clean.images + 0.199)
    assert found.fooled.all()
    assert torch.equal(found.points, clean.images + 0.199)


def test_the_nearest_point_is_kept_and_its_gap_is_a_share_of_the_first() -> None:
    clean = batch(0.1)
    found = Survivors(Sum(), clean, EPS, NoMonitor())
    for step in (0.1, 0.15, 0.05):
        found(clean.images + step)
    assert torch.equal(found.points, clean.images + 0.15)
    assert found.left.item() == pytest.approx((2 - 4 * 0.25) / (2 - 4 * 0.1))


def test_classes_are_tried_in_turn_the_nearest_first() -> None:
    clean = batch(0.1)  # gaps of 1 and of 6.6 clean gaps
    found = Survivors(Sum(), clean, EPS, NoMonitor())
    tries = [found.next_classes(found.surviving) for _ in range(3)]
    assert [classes.tolist() for classes, _ in tries] == [[1], [1], [2]]
    assert [first.tolist() for _, first in tries] == [[True], [False], [True]]


def test_passes_count_what_is_asked_and_what_goes_back() -> None:
    model, clean = Sum(), batch(0.1, 0.4)
    found = Survivors(model, clean, EPS, NoMonitor())
    found(clean.images)
    found(clean.images.clone().requires_grad_())
    assert found.passes == 2 + 2 + 4


def test_logits_are_scaled_by_the_first_gap() -> None:
    clean = batch(0.1, 0.4)
    found = Survivors(Sum(), clean, EPS, NoMonitor())
    answer = found(clean.images)
    assert torch.allclose(answer[:, 0] - answer[:, 1], torch.ones(2))


def test_what_leads_nowhere_leaves_an_attempt_only() -> None:
    model, clean = Sum(), batch(0.1)
    found = Survivors(model, clean, EPS, NoMonitor())
    found(clean.images + 0.15)
    found.begin(found.surviving, slack=0.1)
    for _ in range(6):
        found(clean.images)
    with pytest.raises(NothingLeftError):
        found(clean.images)
    assert len(model.rows) == 2 + 6
    found.begin(found.surviving, slack=0.1)
    found(clean.images)
    assert len(model.rows) == 9


def test_an_attempt_is_judged_by_the_class_that_it_aims_at() -> None:
    model, clean = Sum(), batch(0.1)
    for aim, calls in ((1, 9), (2, 6)):
        found = Survivors(model, clean, EPS, NoMonitor())
        before = len(model.rows)
        found.begin(found.surviving, torch.tensor([aim]), slack=0.1)
        with suppress(NothingLeftError):
            for _ in range(9):
                found(clean.images)
        assert len(model.rows) == before + calls


def test_calls_on_survivors_alone_are_understood_and_others_are_not() -> None:
    clean = batch(0.4, 0.1, 0.05)
    found = Survivors(Sum(), clean, EPS, NoMonitor())
    found(clean.images + 0.15)
    assert found(clean.images[1:] + 0.1).shape == (2, 3)
    with pytest.raises(AttackError, match="expected a call on 3 or on 2 images, got 1"):
        found(clean.images[:1])


def test_what_is_not_finite_fools_nobody() -> None:
    class Broken(Sum):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return logits if len(self.rows) == 1 else torch.full_like(logits, torch.nan)

    clean = batch(0.1)
    found = Survivors(Broken(), clean, EPS, NoMonitor())
    found(clean.images + 0.1)
    assert not found.fooled.any()
    assert torch.equal(found.points, clean.images)


def test_a_tie_is_left_out_as_square_leaves_it_out() -> None:
    clean = batch(0.4, 0.1)
    found = Survivors(Sum(), clean, EPS, NoMonitor())
    found.begin(found.surviving)
    found(torch.stack([torch.full((1, 2, 2), 0.5), clean.images[1]]))
    assert not found.fooled.any()
    assert found(clean.images[1:] + 0.1).shape == (1, 3)
