"""Flatness of a finished run: stored once, by protocol."""

import pytest
import torch
from support.check_contexts import context_of, trained

from flatguard.checks.context import CheckContext
from flatguard.checks.weight_space.flatness import Neighbourhood
from flatguard.checks.weight_space.measure import add_landscape, add_weight_flatness, own_part
from flatguard.checks.weight_space.robust_loss import Ascent
from flatguard.checks.weight_space.summary import landscapes, weight_losses
from flatguard.errors import UsageError

ASCENT = Ascent(0.02, steps=1, restarts=1)
AROUND = Neighbourhood(directions=1, worst_restarts=0)


@pytest.fixture
def context() -> CheckContext:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 4
    weak = "foolbox:LinfAdditiveUniformNoiseAttack"
    return context_of(trained(images, labels), images, labels, weak, eps=0.02, batch_size=4)


def test_the_same_settings_are_measured_once(context: CheckContext) -> None:
    name = add_weight_flatness(context, own_part(context), ASCENT, AROUND)
    spent = context.meter.forwards
    assert name.startswith("weight-flatness-")
    assert add_weight_flatness(context, own_part(context), ASCENT, AROUND) == name
    assert context.meter.forwards == spent > 0
    stored = weight_losses(context.run)["test"]
    assert stored.facts.sample_forwards == spent
    assert sorted(stored.table["case"].unique()) == ["average", "reference"]
    assert set(stored.table["sample"]) == set(range(6))


def test_a_second_protocol_is_refused(context: CheckContext) -> None:
    add_weight_flatness(context, own_part(context), ASCENT, AROUND)
    other = Neighbourhood(xi=0.1, directions=1, worst_restarts=0)
    with pytest.raises(UsageError, match="another protocol"):
        add_weight_flatness(context, own_part(context), ASCENT, other)


def test_landscapes_of_several_settings_are_kept(context: CheckContext) -> None:
    names = {add_landscape(context, ASCENT, n, (0.0, 0.5)) for n in (1, 2)}
    assert len(names) == len(landscapes(context.run)) == 2
    assert {len(table) for table in landscapes(context.run)} == {12, 24}
