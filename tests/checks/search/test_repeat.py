"""The audited attack again: how often, at what price, and when not."""

import torch
from support.check_contexts import context_of, trained

from flatguard.checks.check import InParts
from flatguard.checks.context import CheckContext
from flatguard.checks.search.repeat import cost_of_repeat, repeat_attack

REPEAT = InParts(repeat_attack)


def audited(attack: str, **fields: object) -> CheckContext:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    return context_of(trained(images, labels), images, labels, attack, eps="4/255", **fields)


def test_a_cheap_attack_is_repeated_until_it_has_spent_as_much_as_a_twin() -> None:
    context = audited("foolbox:LinfAdditiveUniformNoiseAttack")
    found = REPEAT(context, 3)
    assert found.facts["repeats"] == 3
    table = found.tables["attempts"]
    assert set(table["attempt"]) == set(table["family"]) == {"repeat"}
    assert sorted(table["sample"]) == sorted(context.survivors)
    assert REPEAT(context, 100).facts["repeats"] == 5
    assert cost_of_repeat(context, 3) == len(context.survivors) * 3


def test_a_dear_attack_is_not_repeated() -> None:
    context = audited("torchattacks:PGD", attack_args={"steps": 30})
    found = REPEAT(context, 2)
    assert not found.ran
    assert "forwards a sample" in found.facts["reason"]
    assert cost_of_repeat(context, 2) == 0.0
