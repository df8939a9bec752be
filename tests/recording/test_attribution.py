"""A row is assigned for certain or not at all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.attacks.monitor import Order
from flatguard.data.dataset import Batch
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import Distances
from flatguard.recording.attribution import UNASSIGNED, Attribution, How, forced_by_order


def assign(
    images: torch.Tensor,
    rows: torch.Tensor,
    budget: Budget | None = None,
    order: Order | None = None,
) -> list[int]:
    found = Attribution(images, budget, order or Order()).assign(rows)
    assert ((found.sample == UNASSIGNED) == (found.how == How.UNASSIGNED)).all()
    if rows.shape[1:] != images.shape[1:]:
        assert found.linf.isnan().all()
        return found.sample.tolist()
    away = Distances(images).to(rows, found.sample.clamp_min(0), ("Linf", "L2"))
    for size, exact in zip((found.linf, found.l2), away, strict=True):
        known = found.sample != UNASSIGNED
        assert torch.equal(size[known], exact[known].double())
        assert size[~known].isnan().all()
    return found.sample.tolist()


def some_images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    norm=st.sampled_from(["Linf", "L2", "L1", "L0"]),
    rows=st.integers(1, 40),
    declared=st.booleans(),
)
def test_rows_within_the_budget_find_their_image(
    seed: int, norm: str, rows: int, declared: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = some_images(9, seed)
    truth = torch.randint(9, (rows,), generator=generator)
    step = torch.randn(rows, 3, 6, 6, generator=generator)
    eps = {"Linf": 0.05, "L2": 0.5, "L1": 3.0, "L0": 20.0}[norm]
    flat = step.flatten(1)
    if norm == "L0":
        keep = torch.rand(flat.shape, generator=generator).argsort(1) < 20
        moved = (images[truth].flatten(1) + flat * keep).view_as(images[truth])
    else:
        size = {"Linf": flat.abs().amax(1), "L2": flat.norm(dim=1), "L1": flat.abs().sum(1)}
        moved = images[truth] + eps * step / size[norm].view(-1, 1, 1, 1)
    budget = Budget(norm, eps if declared else None)
    assert assign(images, moved, budget) == truth.tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.0, 3.0))
def test_rows_at_any_distance_are_never_assigned_wrongly_within_reach(
    seed: int, factor: float
) -> None:
    """A row inside its image's reach is its own; one far outside may only stay open."""
    images = some_images(6, seed)
    apart = torch.cdist(images.flatten(1), images.flatten(1), p=float("inf"))
    apart.fill_diagonal_(float("inf"))
    reach = apart.amin(1) / 2
    step = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).sign()
    moved = images + factor * reach.view(-1, 1, 1, 1) * step
    found = assign(images, moved, Budget("Linf", 1e-3))
    if factor < 0.99:
        assert found == list(range(6))
    nearest = torch.cdist(moved.flatten(1), images.flatten(1), p=float("inf")).argmin(1)
    for row, sample in enumerate(found):
        assert sample in (UNASSIGNED, int(nearest[row]), row)


def test_images_that_lie_together_stay_unassigned() -> None:
    images = some_images(5)
    images[3] = images[1]
    images[4] = images[2] + 0.01
    found = assign(images, images, Budget("Linf", 0.02))
    assert found == [0, UNASSIGNED, 2, UNASSIGNED, 4]  # the near ones by their order alone
    reordered = assign(images, images[[2, 4, 0, 3]], Budget("Linf", 0.02))
    assert reordered == [UNASSIGNED, UNASSIGNED, 0, UNASSIGNED]
    assert assign(images, images)[1::2] == [UNASSIGNED] * 2


def test_a_declared_order_assigns_what_no_distance_could() -> None:
    images, anything = some_images(4), some_images(8, seed=1)
    order = Order(keeps=True)
    assert assign(images, anything[:4], order=order) == [0, 1, 2, 3]
    assert assign(images, anything[:3], Budget("Linf", 0.01), order) == [UNASSIGNED] * 3
    copies = Order(copies="consecutive")
    assert assign(images, anything, order=copies) == [0, 0, 1, 1, 2, 2, 3, 3]
    copies = Order(copies="tiled")
    assert assign(images, anything, order=copies) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_run_on_a_subset_keeps_the_subsets_order() -> None:
    images, anything = some_images(6), some_images(3, seed=1)
    attribution = Attribution(images, Budget("Linf", 0.01))
    before = attribution.begin_run(images[[1, 3, 4]])
    found = attribution.assign(anything)
    assert found.sample.tolist() == [1, 3, 4]
    assert set(found.how.tolist()) == {How.DECLARED}
    rows = torch.stack([images[1], anything[0], images[4]])[[0, 2]]
    assert attribution.assign(rows).sample.tolist() == [1, 4]
    attribution.end_run(before)
    assert attribution.assign(anything).sample.tolist() == [UNASSIGNED] * 3


def test_a_run_on_images_that_are_not_certain_declares_nothing() -> None:
    images = some_images(6)
    images[2] = images[1]
    attribution = Attribution(images, Budget("Linf", 0.01))
    attribution.begin_run(images[[1, 3]])
    assert attribution.assign(some_images(2, seed=1)).sample.tolist() == [UNASSIGNED] * 2


def test_order_forces_a_row_that_is_also_nearest() -> None:
    images = some_images(4)
    far = images + 0.45 * (0.5 - images).sign()  # beyond every reach
    rows = images.clone()
    rows[2] = 0.6 * images[2] + 0.4 * far[2]
    found = Attribution(images, Budget("Linf", 0.01)).assign(rows)
    assert found.sample[2].item() in (2, UNASSIGNED)
    rows[2] = images[0].flip(0)  # forced by its place, but nothing says that it is sample 2
    nearest = torch.cdist(rows[2:3].flatten(1), images.flatten(1)).argmin().item()
    found = Attribution(images, Budget("Linf", 0.01)).assign(rows)
    assert found.sample[2].item() == (2 if nearest == 2 else UNASSIGNED)
    assert found.how[2].item() == (How.ORDER if nearest == 2 else How.UNASSIGNED)


@pytest.mark.parametrize(
    ("given_", "n", "expected"),
    [
        ([0, -1, -1, 3, -1], 6, [0, 1, 2, 3, -1]),
        ([-1, 1, -1], 3, [0, 1, 2]),
        ([-1, -1], 2, [0, 1]),
        ([-1, 2], 5, [-1, 2]),
        ([-1, -1, 2, -1], 4, [0, 1, 2, 3]),
    ],
)
def test_what_order_forces(given_: list[int], n: int, expected: list[int]) -> None:
    assert forced_by_order(given_, n) == expected


@given(st.sets(st.integers(0, 15), min_size=1), st.data())
def test_what_order_forces_is_true(subset: set[int], data: st.DataObject) -> None:
    truth = sorted(subset)
    hidden = [t if data.draw(st.booleans()) else UNASSIGNED for t in truth]
    for found, true in zip(forced_by_order(hidden, 16), truth, strict=True):
        assert found in (true, UNASSIGNED)


def test_a_sequential_attack_is_still_at_its_image() -> None:
    images = some_images(3)
    attribution = Attribution(images, Budget("L0", 2.0), Order(sequential=True))
    far = some_images(2, seed=9)
    seen = [
        attribution.assign(rows).sample.tolist()
        for rows in (images[:1], far, images[1:2], far[:1], images[2:3])
    ]
    assert seen == [[0], [0, 0], [1], [1], [2]]


def test_rows_of_another_shape() -> None:
    assert assign(some_images(4), torch.rand(2, 3, 9, 9)) == [UNASSIGNED] * 2


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 16 / 255])
def test_real_images_are_far_enough_apart(demo_batch: Batch, eps: float) -> None:
    images = demo_batch.images
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    moved = (images + eps * noise.sign()).clamp(0, 1)[order]
    assert assign(images, moved, Budget("Linf", eps)) == order.tolist()
    assert assign(images, moved) == order.tolist()


def test_one_image_alone() -> None:
    assert assign(some_images(1), some_images(2, seed=1)) == [0, 0]
