"""What calls do to a model and what they depend on, measured on models that are known."""

import copy

import pytest
import torch
from support import broken
from support.broken import Around, SetUp
from torch import Tensor, nn

from flatguard.checks.preflight import behaviour
from flatguard.checks.preflight.calls import Caller
from flatguard.checks.preflight.facts import differs
from flatguard.environment.randomness import preserved

CPU = torch.device("cpu")


def caller_of(model: nn.Module) -> Caller:
    return Caller(model.eval(), CPU, seed=0, batch=128)


def measured(model: nn.Module, good: SetUp, count: int = 32) -> dict[str, object]:
    with preserved(CPU):
        images, others = good.images[:count], good.images[count : 2 * count]
        return behaviour.measure_behaviour(caller_of(model), images, others)


def test_an_honest_model_does_not_differ(good: SetUp) -> None:
    found = measured(good.model, good)
    assert not found["writes_input"]
    assert not found["trained_parts"]
    for part in ("repeated", "other_seed", "other_neighbours", "smaller_batch"):
        assert not differs(found[part])
    assert found["other_neighbours"].images == 16


def test_the_place_in_the_batch_counts(good: SetUp) -> None:
    """The same images are shown at other places too."""
    by_place = Around(good.model, after=lambda z: z + torch.arange(len(z))[:, None] * z.std())
    found = measured(by_place, good)
    assert differs(found["other_neighbours"])
    assert not differs(found["repeated"])
    last = Around(good.model, after=lambda z: torch.cat([z[:-1], z[-1:].flip(1)]))
    assert differs(measured(last, good)["smaller_batch"])


@pytest.mark.parametrize("noise", [torch.randn_like, lambda z: torch.rand(10)])
def test_a_random_model_is_not_said_to_depend_on_its_batch(noise, good: SetUp) -> None:
    """Each place has its own random numbers, so images keep their places."""
    found = measured(Around(good.model, after=lambda z: z + noise(z)), good)
    assert differs(found["other_seed"])
    assert not differs(found["repeated"])
    assert not differs(found["other_neighbours"])
    assert "smaller_batch" not in found


def test_draws_are_told_from_a_drift(good: SetUp) -> None:
    assert measured(broken.OwnGenerator(good.model), good)["own_generator"] is True
    assert measured(broken.Drifts(good.model), good)["own_generator"] is False
    assert measured(broken.EverySecond(good.model), good)["own_generator"] is False


def test_draws_beside_other_images_are_compared(good: SetUp) -> None:
    random = broken.OwnGenerator(good.model)
    assert measured(random, good)["batch_draws_apart"] is False
    on_its_batch = Around(random, after=lambda z: z - 30 * z.mean(dim=0))
    assert measured(on_its_batch, good)["batch_draws_apart"] is True


def test_draws_of_one_distribution_are_not_apart() -> None:
    """Also where one number decides all: they fall apart in few of many cases."""
    generator = torch.Generator().manual_seed(0)
    apart = 0
    for _ in range(1000):
        draws = list(torch.randn(10, 1, generator=generator))
        apart += behaviour.are_apart(draws[:5], draws[5:])
    assert apart < 10
    assert behaviour.are_apart(draws[:5], [draw + 20 for draw in draws[5:]])


@pytest.mark.parametrize(("tires", "apart"), [(False, False), (True, True)])
def test_random_answers_of_a_used_model_and_a_new_one(
    tires: bool, apart: bool, good: SetUp
) -> None:
    inner = broken.TiresSoon(good.model) if tires else good.model
    original = broken.OwnGenerator(inner).eval()
    caller = caller_of(copy.deepcopy(original))
    with preserved(CPU):
        caller.logits(good.images[:120])
        found = behaviour.measure_random_state(caller, original, good.images[:16])
    assert found["state_draws_apart"] is apart


def test_few_images_are_not_compared(good: SetUp) -> None:
    found = measured(good.model, good, 1)
    assert "smaller_batch" not in found
    assert not differs(found["repeated"])


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (lambda z: z, None),
        (lambda z: z.squeeze(), "gives (10,) in place of (1, 10)"),
        (lambda z: z[1:], "gives (0, 10) in place of (1, 10)"),
        (lambda z: [z], "gives list in place of (1, 10)"),
        (lambda z: 1 / 0, "raises ZeroDivisionError: division by zero"),
    ],
)
def test_a_single_image(after, text: str | None, good: SetUp) -> None:
    caller = caller_of(Around(good.model, after=after))
    assert behaviour.single_image_error(caller, good.images[:1], 10) == text
    assert caller.forwards == 1


@pytest.mark.parametrize(
    ("kind", "after_calls", "near"),
    [(broken.CountsOnly, False, False), (broken.TiresSoon, True, True),
     (broken.Locks, False, True)],
)  # fmt: skip
def test_a_used_model_is_compared_with_new_copies(
    kind: type[nn.Module], after_calls: bool, near: bool, good: SetUp
) -> None:
    original = kind(good.model).eval()
    caller = caller_of(copy.deepcopy(original))
    with preserved(CPU):
        for rows in torch.arange(120).split(20):
            caller.logits(good.images[rows])
        found = behaviour.measure_state(caller, original, good.images[:16])
    assert differs(found["after_calls"]) == after_calls
    assert differs(found["near_image"]) == near


def test_values_that_change_are_named_and_others_are_not() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    before = {name: value.clone() for name, value in behaviour.values(net).items()}
    assert behaviour.changed_values(before, net) == ()  # NaN is what it was
    net[1].running_mean += 1
    with torch.no_grad():
        net[0].weight[1, 1] += 1e-6
    assert behaviour.changed_values(before, net) == ("0.weight", "1.running_mean")
    net[0].weight = nn.Parameter(torch.zeros(3, 2))
    net.register_buffer("new", torch.zeros(1))
    assert behaviour.changed_values(before, net) == ("0.weight", "new", "1.running_mean")


def test_modules_in_training_mode_are_named() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    assert behaviour.in_training(net) == ()
    net[1].train()
    assert behaviour.in_training(net) == ("1",)
    assert behaviour.in_training(net.train())[0] == "the model itself"


def _gone(x: Tensor) -> Tensor:
    raise ValueError("no gradients here")


@pytest.mark.parametrize(
    ("before", "absent", "zero", "not_finite"),
    [
        (lambda x: x, False, 0, 0),
        (lambda x: x.detach(), True, 0, 0),
        (lambda x: 1e30 * (x - x.detach()) * 1e30 + x, False, 0, 8),
        (lambda x: x.round() * (x > 2) + torch.where(x[:1] > 2, x, 0 * x), False, 8, 0),
    ],
)
def test_the_gradient_of_the_margin(
    before, absent: bool, zero: int, not_finite: int, good: SetUp
) -> None:
    caller = caller_of(Around(good.model, before=before))
    found = behaviour.measure_gradient(caller, good.images[:8])
    assert (found.images, found.absent, found.zero, found.not_finite) == (
        8, absent, zero, not_finite,
    )  # fmt: skip
    assert all(value.grad is None for value in good.model.parameters())


def test_a_model_that_raises_has_no_gradient_and_the_reason(good: SetUp) -> None:
    found = behaviour.measure_gradient(caller_of(Around(good.model, before=_gone)), good.images[:2])
    assert (found.absent, found.error) == (True, "ValueError: no gradients here")
