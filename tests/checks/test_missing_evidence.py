"""What is advised about a check that did not run changes something."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.evidence import attempts, evidence, gradients, judged_by

from flatguard.checks.evidence import Drawn, Evidence, ProbeEvidence
from flatguard.checks.missing_evidence import (
    LARGER_BUDGET,
    SEARCHED_NORMS,
    SURROGATE,
    UNDECIDED_ONLY,
    how_to_name_a_surrogate,
    how_to_run,
)
from flatguard.checks.verdict import judge

STANDARD = "flatguard audit RUN --checks standard"
DRAWN = Drawn(frozenset(range(16)), 60)


def with_probe(facts: Mapping[str, Any]) -> Evidence:
    return evidence(probes={"square-200": ProbeEvidence(dict(facts))})


@pytest.mark.parametrize(
    ("found", "how"),
    [
        (evidence(), STANDARD),
        (with_probe({"ran": False, "reason": "time", "budget": True}), STANDARD),
        (
            with_probe({"ran": False, "reason": "an error"}),
            f"correct what stopped it, then {STANDARD}",
        ),
        (with_probe({"ran": True}), None),
        (replace(evidence(), norm="L0"), SEARCHED_NORMS),
        (replace(evidence(), drawn=DRAWN), UNDECIDED_ONLY),
        (replace(evidence(), complete=False), "flatguard resume RUN"),
        (replace(evidence(), complete=False, stopped="the time"), LARGER_BUDGET),
    ],
)
def test_what_gives_a_probe_its_evidence(found: Evidence, how: str | None) -> None:
    assert how_to_run(found, "square", "standard") == how


def test_a_probe_that_searches_nothing_runs_in_every_norm() -> None:
    found = replace(evidence(), norm="L0")
    assert how_to_run(found, "determinism", searches=False) == "flatguard audit RUN --checks fast"


def test_a_surrogate_is_named_where_a_level_adds_none() -> None:
    """Also after `standard`, where only a surrogate is missing."""
    assert how_to_name_a_surrogate(evidence()) == SURROGATE
    assert how_to_name_a_surrogate(replace(evidence(), drawn=DRAWN)) == UNDECIDED_ONLY
    ran = ProbeEvidence({"ran": True}, attempts(100, range(60), {"black-box": ()}).tables)
    longer = ProbeEvidence({"ran": True}, attempts(100, range(60), {"budget": ()}).tables)
    base = judged_by()
    steps = judge(
        replace(base, probes={**base.probes, "square-200": ran, "longer-60": longer})
    ).next
    assert SURROGATE in steps
    assert STANDARD not in steps


def test_an_incomplete_run_is_resumed_and_not_audited() -> None:
    steps = judge(replace(evidence(), complete=False, names_code=True)).next
    assert steps[0] == "flatguard resume RUN --allow-code"
    assert not any("audit RUN" in step for step in steps)


def test_enough_queries_are_advised_where_gradients_tell_nothing() -> None:
    truth = gradients(16, margin_state="zero", drops={"raw": 0.0, "tempered": 0.0, "cutting": 0.0})
    found = judged_by({"black-box": ()}, truth=truth)
    assert judge(found).next[0] == "flatguard audit RUN --checks full"
    assert "flatguard audit RUN --checks full" not in judge(judged_by()).next
