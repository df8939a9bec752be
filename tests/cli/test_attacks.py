"""`flatguard attacks`."""

import inspect
import json

import pytest

from flatguard.cli.attacks import _default


def test_attacks(cli) -> None:
    everything = cli("attacks")
    assert everything.code == 0
    for name in ("apgd-ce", "torchattacks:PGD", "foolbox:LinfPGD"):
        assert name in everything.out
    one = json.loads(cli("attacks", "torchattacks:PGD", "--json").out)
    assert one[0]["norms"] == ["Linf"]
    assert one[0]["arguments"]["steps"] == "10"
    assert "random_start=True" in cli("attacks", "torchattacks:PGD").out.replace("\n", "")
    assert cli("attacks", "PDG").code == 2


def test_attacks_on_prompts_are_listed(cli) -> None:
    pytest.importorskip("nanogcg")
    assert "on prompts" in cli("attacks").out
    (one,) = json.loads(cli("attacks", "gcg", "--json").out)
    assert one["arguments"]["search_width"] == "512"


def test_an_argument_without_a_default_is_required() -> None:
    kind = inspect.Parameter.KEYWORD_ONLY
    assert _default(inspect.Parameter("order", kind)) == "(required)"
    assert _default(inspect.Parameter("order", kind, default="x")) == "'x'"
