"""Which mistakes a gate hid from the audited attack."""

from dataclasses import replace

import pandas as pd
from support.evidence import judged_by

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.mechanism import GATE_FIX, explanations
from flatguard.checks.switch_evidence import hidden_by_the_gate
from flatguard.checks.verdict import judge


def mechanism_of(found: Evidence) -> str | None:
    named = explanations(found)
    return named[0].mechanism if named else None


def with_choices(base: Evidence, **columns: list[object]) -> Evidence:
    count = len(next(iter(columns.values())))
    usual = {"sample": range(count), "clean": 0, "random": 0, "audited": 0, "found": -1}
    table = pd.DataFrame({**usual, "frozen": [False] * count, **columns})
    probe = ProbeEvidence({"branches": 2, "gates": ["gt"]}, {"choices": table})
    return replace(base, probes={**base.probes, "switches-20": probe})


def test_without_a_switch_nothing_is_hidden() -> None:
    assert hidden_by_the_gate(judged_by({"temperature": range(20)})) == set()


def test_what_the_attack_fools_where_the_gate_is_frozen() -> None:
    found = judged_by({"control": range(20)})
    hidden = with_choices(found, frozen=[n < 12 for n in range(20)])
    assert hidden_by_the_gate(hidden) == set(range(12))
    assert mechanism_of(hidden) == "shattered-gradient"
    assert judge(hidden).verdict == "masked"
    assert judge(hidden).next[0] == GATE_FIX
    less = with_choices(found, frozen=[n < 8 for n in range(20)])
    assert mechanism_of(less) is None
    assert judge(less).verdict == "overestimated"


def test_what_another_seed_fools_was_not_hidden() -> None:
    found = judged_by({"repeat": range(20)})
    assert mechanism_of(with_choices(found, frozen=[True] * 20)) is None
    partly = judged_by({"repeat": range(10), "control": range(20)})
    assert mechanism_of(with_choices(partly, frozen=[True] * 20)) == "shattered-gradient"


def test_an_example_in_another_branch() -> None:
    found = judged_by({"switch": range(20), "control": range(3)})
    turned = with_choices(found, found=[1] * 16 + [0] * 4)
    assert hidden_by_the_gate(turned) == set(range(3, 16))
    assert mechanism_of(turned) == "shattered-gradient"
    stayed = with_choices(found, found=[0] * 20)
    assert hidden_by_the_gate(stayed) == set()


def test_a_handful_is_not_beyond_chance() -> None:
    few = judged_by({"control": range(5)}, n=50, survivors=range(30))
    assert mechanism_of(with_choices(few, frozen=[True] * 5)) is None
