"""A row is assigned for certain or not at all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.geometry.budget import Budget
from flatguard.recording.attribution import UNASSIGNED, Attribution
from flatguard.targets.datasets import Batch


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    norm=st.sampled_from(["Linf", "L2", "L1"]),
    rows=st.integers(1, 40),
)
def test_rows_within_the_budget_find_their_image(seed: int, norm: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(9, 3, 6, 6, generator=generator)
    eps = {"Linf": 0.05, "L2": 0.5, "L1": 3.0}[norm]
    truth = torch.randint(9, (rows,), generator=generator)
    step = torch.randn(rows, 3, 6, 6, generator=generator)
    flat = step.flatten(1)
    size = {"Linf": flat.abs().amax(1), "L2": flat.norm(dim=1), "L1": flat.abs().sum(1)}[norm]
    moved = images[truth] + eps * step / size.view(-1, 1, 1, 1)
    found = Attribution(images, Budget(norm, eps)).assign(moved)
    # At random images within 2 eps of each other are as good as impossible, but then certain.
    assert torch.equal(found, truth)


def test_images_that_lie_together_stay_unassigned() -> None:
    images = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images[3] = images[1]
    images[4] = images[2] + 0.01
    found = Attribution(images, Budget("Linf", 0.02)).assign(images)
    assert found.tolist() == [0] + [UNASSIGNED] * 4
    everything_else = Attribution(images).assign(images)  # no budget declared
    assert everything_else.tolist()[:2] == [0, UNASSIGNED]


def test_a_declared_order_assigns_what_no_distance_could() -> None:
    images = torch.rand(4, 3, 5, 5)
    ordered = Attribution(images, Budget("Linf", 0.01), keeps_order=True)
    assert ordered.assign(torch.rand(4, 3, 5, 5)).tolist() == [0, 1, 2, 3]
    assert ordered.assign(torch.rand(3, 3, 5, 5)).tolist() == [UNASSIGNED] * 3


def test_an_l0_ball_bounds_no_single_value() -> None:
    images = torch.rand(4, 3, 5, 5)
    assert Attribution(images, Budget("L0", 3.0)).assign(images).tolist() == [UNASSIGNED] * 4


def test_rows_of_another_shape() -> None:
    images = torch.rand(4, 3, 5, 5)
    assert Attribution(images).assign(torch.rand(2, 3, 9, 9)).tolist() == [UNASSIGNED] * 2


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 16 / 255])
def test_real_images_are_far_enough_apart(demo_batch: Batch, eps: float) -> None:
    images = demo_batch.images
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    moved = (images + eps * noise.sign()).clamp(0, 1)[order]
    assert torch.equal(Attribution(images, Budget("Linf", eps)).assign(moved), order)
    assert torch.equal(Attribution(images).assign(moved), order)


def test_one_image_alone() -> None:
    images = torch.rand(1, 3, 5, 5)
    assert Attribution(images).assign(torch.rand(2, 3, 5, 5)).tolist() == [0, 0]
