"""Findings, and advice that can be typed."""

import math
from pathlib import Path

from flatguard.checks.finding import RESUME, TRUST, Finding, advice, consenting, needs_trust

PROBING = "flatguard audit RUN --checks fast"


def test_advice_names_the_run_as_it_is_typed() -> None:
    assert advice(PROBING, Path("a run")) == "flatguard audit 'a run' --checks fast"
    assert advice("attack the temperature twin", Path("a")) == "attack the temperature twin"


def test_what_is_not_finite_was_not_measured() -> None:
    found = Finding(check="a", status="pass", summary="", value=math.nan, data={"b": [math.inf]})
    assert (found.value, found.data) == (None, {"b": [None]})


def test_checks_of_a_run_that_names_code_need_consent() -> None:
    step = consenting(PROBING, needed=True)
    assert step == f"{PROBING} --allow-code"
    assert consenting(RESUME, needed=True) == f"{RESUME} --allow-code"
    assert needs_trust([step])
    assert not needs_trust([consenting(PROBING, needed=False)])
    assert "do not trust" in TRUST
