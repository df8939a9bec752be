"""The cascade: as low as the truth where it is known, for few passes; honest elsewhere."""

import math

import pytest
import torch
from support.segments import Listing
from torch import Tensor, nn

import flatguard
from flatguard.attacks import build_attack, find_attack
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget, Norm
from flatguard.geometry.distance import within


class Linear(nn.Module):
    """A linear classifier, whose nearest adversarial example is known; counts passed rows."""

    def __init__(self, classes: int, scale: float = 1.0):
        super().__init__()
        torch.manual_seed(classes)
        self.linear = nn.Linear(48, classes)
        self.scale, self.rows = scale, 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        logits: Tensor = self.scale * self.linear(images.flatten(1))
        return logits


def inner(count: int) -> Tensor:
    """Images so far from the corners of the box that the budgets here do not reach it."""
    return 0.4 + 0.2 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def distances(model: Linear, images: Tensor, labels: Tensor, norm: Norm) -> Tensor:
    """From each image to the nearest that is classified otherwise, exactly."""
    weights = model.linear.weight
    logits = model.linear(images.flatten(1))
    change = weights[None] - weights[labels][:, None]
    dual = {"Linf": 1.0, "L2": 2.0, "L1": torch.inf}[norm]
    apart = logits.gather(1, labels[:, None]) - logits
    apart = apart / torch.linalg.vector_norm(change, ord=dual, dim=2)
    return apart.scatter(1, labels[:, None], torch.inf).amin(dim=1)


@pytest.mark.parametrize("scale", [1.0, 1e5], ids=["plain", "saturated"])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_model_is_fooled_where_it_can_be(norm: Norm, classes: int, scale: float) -> None:
    model, images = Linear(classes, scale).eval(), inner(60)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
        nearest = distances(model, images, labels, norm)
    eps = float(nearest.sort().values[29:31].mean())
    budget, expected = Budget(norm, eps), nearest > eps
    found = build_attack("cascade", budget, classes, {}).perturb(model, images, labels, 0)
    assert within(found.images, images, budget).all()
    assert not found.warnings
    with torch.no_grad():
        right = model(found.images).argmax(dim=1) == labels
    assert torch.equal(right, expected)
    assert int(right.sum()) == 30


def test_l1_stays_within_its_budget_and_fools() -> None:
    model, images = Linear(10).eval(), inner(40)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
        nearest = distances(model, images, labels, "L1")
    budget = Budget("L1", float(nearest.median()))
    found = build_attack("cascade", budget, 10, {}).perturb(model, images, labels, 0)
    assert within(found.images, images, budget).all()
    with torch.no_grad():
        fooled = model(found.images).argmax(dim=1) != labels
    clearly = nearest < 0.9 * budget.eps
    assert int(clearly.sum()) > 5
    assert fooled[clearly].all()


def test_it_costs_little_beside_autoattack() -> None:
    passed = {}
    for name in ("cascade", "standard"):
        model, images = Linear(10).eval(), inner(30)
        labels = model(images).argmax(dim=1)
        model.rows = 0
        build_attack(name, Budget("Linf", 0.01), 10, {}).perturb(model, images, labels, 0)
        passed[name] = model.rows
    assert passed["cascade"] < 0.02 * passed["standard"]


def test_every_row_of_a_run_has_its_sample_and_its_attempt() -> None:
    model, images = Linear(10).eval(), inner(30)
    labels, budget = model(images).argmax(dim=1), Budget("Linf", 0.02)
    with flatguard.Recorder(model, images, labels, budget=budget) as recorder:
        attack = build_attack("cascade", budget, 10, {})
        attack.perturb(recorder.model, images, labels, 0, recorder)
    rows = recorder.trajectory()
    assert recorder.rows_unassigned == 0
    assert (rows["assigned_by"] == "declared").all()
    assert len(rows) == recorder.forwards - recorder.rows_aside
    assert recorder.rows_aside == 2 * 8  # where branches were looked for
    assert {segment.part for segment in recorder.segments} >= {"apgd-dlr"}


class Rounded(Linear):
    """Pixels are rounded to eighths: no gradient reaches the images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 8).round() / 8)


def test_it_says_where_gradients_mislead() -> None:
    model, images = Rounded(10).eval(), inner(20)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    found = build_attack("cascade", Budget("Linf", 0.07), 10, {}).perturb(model, images, labels, 0)
    assert any("gradients mislead the cascade" in warning for warning in found.warnings)
    with torch.no_grad():
        assert (model(found.images).argmax(dim=1) != labels).any()


def test_it_says_that_it_was_cut_short() -> None:
    model, images = Linear(10).eval(), inner(40)
    labels = model(images).argmax(dim=1)
    args = {"first_steps": 1, "next_steps": 1, "most_passes": 30, "reach": 0.0, "least": 40}
    found = build_attack("cascade", Budget("Linf", 0.01), 10, args)
    assert any(
        "before 5 attempts in a row found nothing" in one
        for one in found.perturb(model, images, labels, 0).warnings
    )


FEW, MORE = ((2, 1), (4, 5)), ((3, 2), (10, 9))
"""Numbers of classes, and of images."""


@pytest.mark.parametrize(
    ("size", "numbers"),
    [((1, 1, 1), MORE), ((1, 4, 64), FEW), ((3, 64, 4), MORE), ((2, 6, 17), FEW)],
)
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_no_size_and_no_number_of_survivors_makes_it_fail_or_warn(
    norm: Norm, size: tuple[int, int, int], numbers: tuple[tuple[int, int], ...]
) -> None:
    values, budget = math.prod(size), Budget(norm, {"Linf": 0.005, "L2": 0.02, "L1": 0.05}[norm])
    for classes, count in numbers:
        torch.manual_seed(1)
        layers = nn.Linear(values, 16), nn.Tanh(), nn.Linear(16, classes)
        model = nn.Sequential(nn.Flatten(), *layers).eval()
        images = torch.rand(count, *size)
        labels = model(images).argmax(dim=1)
        found = build_attack("cascade", budget, classes, {}).perturb(model, images, labels, 0)
        assert within(found.images, images, budget).all()
        assert not found.warnings


class Noisy(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


def test_a_randomised_model_is_refused() -> None:
    model, images = Noisy(10).eval(), inner(20)
    with torch.no_grad():
        labels = model.linear(images.flatten(1)).argmax(dim=1)
    attack = build_attack("cascade", Budget("Linf", 0.01), 10, {})
    with pytest.raises(AttackError, match=r"other logits in a second call.*--attack rand"):
        attack.perturb(model, images, labels, 0)


def test_nothing_to_attack() -> None:
    model, images = Linear(10).eval(), inner(4)
    labels = (model(images).argmax(dim=1) + 1) % 10
    model.rows, listing = 0, Listing()
    build_attack("cascade", Budget("Linf", 0.01), 10, {}).perturb(model, images, labels, 0, listing)
    assert model.rows == 4
    assert not listing.segments


def test_its_name_and_its_arguments() -> None:
    assert find_attack("Cascade").name == "cascade"
    effective = build_attack("cascade", Budget("L2", 1.0), 10, {"patience": 9}).effective_args()
    assert effective["patience"] == 9
    assert set(effective) == {
        "first_steps",
        "next_steps",
        "reach",
        "least",
        "patience",
        "most_passes",
    }
    with pytest.raises(AttackError, match="no argument 'steps'"):
        build_attack("cascade", Budget("L2", 1.0), 10, {"steps": 9})
    with pytest.raises(AttackError, match="measures"):
        build_attack("cascade", Budget("L0", 5.0), 10, {})
