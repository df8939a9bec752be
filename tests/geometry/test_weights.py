"""Balls and directions in weight space, against their definitions and by invariance."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.geometry import weights as geometry
from flatguard.geometry.weights import Movable, Weights
from flatguard.targets.weights_hash import weights_sha256


class LayerNorm2d(nn.Module):
    """A third party's, known by its name only."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain[:, None, None] * x


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4),
        LayerNorm2d(), nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3),
    ).eval()  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def length(x: Tensor) -> float:
    return float(x.double().norm())


def test_layers_are_single_parameters_outside_normalisation() -> None:
    assert list(geometry.layers_of(network())) == [
        "0.weight", "0.bias", "3.weight", "3.bias", "7.weight", "7.bias", "10.weight", "10.bias",
    ]  # fmt: skip


def test_what_wraps_a_model_is_no_normalisation_layer() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    assert list(geometry.layers_of(Normalized())) == ["model.weight", "model.bias"]


@settings(max_examples=25, deadline=None)
@given(
    st.floats(1e-4, 10.0),
    st.integers(0, 2**31),
    st.lists(st.floats(-30, 30), min_size=2, max_size=5),
)
def test_every_layer_lies_on_the_rim_within_it_or_is_projected_onto_it(
    xi: float, seed: int, exponents: list[float]
) -> None:
    weights: Weights = {
        str(i): 10.0**e * torch.randn(3, 4, dtype=torch.float64, generator=generator(seed + i))
        for i, e in enumerate(exponents)
    }
    rim = geometry.on_sphere(weights, xi, generator(seed))
    inner = geometry.in_ball(weights, xi, generator(seed))
    back = geometry.project({name: 3.0 * nu for name, nu in rim.items()}, weights, xi)
    for name, weight in weights.items():
        radius = xi * length(weight)
        assert length(rim[name]) == pytest.approx(radius, rel=1e-12)
        assert length(inner[name]) <= radius * (1 + 1e-12)
        torch.testing.assert_close(back[name], rim[name], rtol=1e-12, atol=0)
        kept = geometry.project(inner, weights, xi)[name]
        assert torch.equal(kept, inner[name])


def test_directions_are_uniform_on_the_sphere() -> None:
    """Each coordinate has mean 0 and variance 1/d of the radius; 4 standard errors."""
    weights = {"w": torch.ones(3, dtype=torch.float64)}
    one = generator(3)
    drawn = torch.stack([geometry.on_sphere(weights, 1.0, one)["w"] for _ in range(4000)])
    unit = drawn / 3**0.5
    assert unit.mean(dim=0).abs().max() < 4 * (1 / 3 / 4000) ** 0.5
    # Of a uniform direction in three dimensions, x² has mean 1/3 and variance 4/45.
    assert (unit.square().mean(dim=0) - 1 / 3).abs().max() < 4 * (4 / 45 / 4000) ** 0.5


def test_a_layer_of_zeros_stays_where_it_is() -> None:
    weights = {"bias": torch.zeros(5), "none": torch.zeros(0)}
    for step in (
        geometry.on_sphere(weights, 0.5, generator()),
        geometry.in_ball(weights, 0.5, generator()),
        geometry.filter_normalised(weights, generator()),
        geometry.steepest({name: torch.ones_like(w) for name, w in weights.items()}, weights),
    ):
        assert all(not bool(nu.any()) for nu in step.values())


def test_steepest_survives_tiny_huge_and_broken_gradients() -> None:
    weights = {"w": torch.tensor([3.0, 4.0])}
    for size in (1e-300, 1.0, 1e300):
        gradient = {"w": size * torch.tensor([1.0, -1.0], dtype=torch.float64)}
        found = geometry.steepest(gradient, weights)["w"]
        expected = torch.tensor([5 / 2**0.5, -5 / 2**0.5], dtype=torch.float64)
        torch.testing.assert_close(found, expected)
    for broken in (float("nan"), float("inf")):
        assert not geometry.steepest({"w": torch.tensor([1.0, broken])}, weights)["w"].any()


def test_every_filter_of_a_direction_is_as_long_as_the_models() -> None:
    weights = geometry.layers_of(network())
    direction = geometry.filter_normalised(weights, generator())
    for name, weight in weights.items():
        if weight.ndim < 2:
            assert not direction[name].any()
            continue
        for row, own in zip(direction[name], weight, strict=True):
            assert length(row) == pytest.approx(length(own), rel=1e-12)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_rescaling_a_layer_rescales_its_steps_exactly(factor: float) -> None:
    """Factors of 2 are exact in floating point, so there is nothing to tolerate."""
    weights = geometry.layers_of(network())
    scaled = {name: factor * weight for name, weight in weights.items()}
    for make in (
        lambda w: geometry.on_sphere(w, 0.5, generator(1)),
        lambda w: geometry.in_ball(w, 0.5, generator(1)),
        lambda w: geometry.filter_normalised(w, generator(1)),
    ):
        one, other = make(weights), make(scaled)
        assert all(torch.equal(factor * one[name], other[name]) for name in weights)


def test_the_copy_moves_and_comes_back_bit_for_bit() -> None:
    model = network().requires_grad_(True)
    before, images = weights_sha256(model), torch.rand(4, 1, 6, 6)
    plain = model(images).detach()
    movable = Movable(model)
    step = geometry.on_sphere(movable.weights, 0.5, generator())
    with movable.at(step) as moved:
        assert moved is not model
        assert weights_sha256(moved) != before
        there = geometry.layers_of(moved)
        for name, nu in step.items():
            torch.testing.assert_close(there[name], (movable.weights[name] + nu).float())
        norms = [name for name, _ in model.named_parameters() if name not in step]
        for name in norms:
            assert torch.equal(dict(moved.named_parameters())[name], model.get_parameter(name))
    with movable.at({}) as moved:
        assert weights_sha256(moved) == before
        assert torch.equal(moved(images), plain)
    with pytest.raises(RuntimeError, match="midway"), movable.at(step):
        raise RuntimeError("midway")
    with movable.at({}) as moved:
        assert weights_sha256(moved) == before
    assert weights_sha256(model) == before
    assert all(weight.requires_grad for weight in model.parameters())


def test_gradients_are_taken_where_the_copy_stands() -> None:
    model = network()
    movable, images = Movable(model), torch.rand(4, 1, 6, 6)
    step = geometry.on_sphere(movable.weights, 0.5, generator())
    truth = copy.deepcopy(model)
    with torch.no_grad():
        for name, nu in step.items():
            truth.get_parameter(name).copy_((movable.weights[name].double() + nu).float())
    truth(images).square().sum().backward()
    with movable.at(step) as moved:
        with movable.differentiable() as leaves:
            loss = moved(images).square().sum()
            found = torch.autograd.grad(loss, list(leaves.values()))
        assert not any(weight.requires_grad for weight in moved.parameters())
    for name, gradient in zip(leaves, found, strict=True):
        torch.testing.assert_close(gradient, truth.get_parameter(name).grad)


def test_what_cannot_be_perturbed_is_one_line() -> None:
    with pytest.raises(ModelError, match="no weights outside"):
        Movable(nn.Sequential(nn.Flatten(), nn.LayerNorm(4)))
    broken = nn.Linear(2, 2)
    broken.cached = broken.weight * 2  # a tensor with a history cannot be copied
    with pytest.raises(ModelError, match="copying fails"):
        Movable(broken)
