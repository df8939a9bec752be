"""Findings, and advice that can be typed."""

import math
from pathlib import Path

from flatguard.checks.finding import RESUME, TRUST, Finding, advice, loading, needs_trust

PROBING = "flatguard audit RUN --checks fast"


def test_advice_names_the_run_as_it_is_typed() -> None:
    assert advice(PROBING, Path("a run")) == "flatguard audit 'a run' --checks fast"
    assert advice("attack the temperature twin", Path("a")) == "attack the temperature twin"


def test_what_is_not_finite_was_not_measured() -> None:
    found = Finding(check="a", status="pass", summary="", value=math.nan, data={"b": [math.inf]})
    assert (found.value, found.data) == (None, {"b": [None]})


def test_checks_of_a_run_that_names_code_need_consent() -> None:
    step = loading(PROBING, names_code=True, from_python=())
    assert step == f"{PROBING} --allow-code"
    assert loading(RESUME, names_code=True, from_python=()) == f"{RESUME} --allow-code"
    assert needs_trust([step])
    assert not needs_trust([loading(PROBING, names_code=False, from_python=())])
    assert "do not trust" in TRUST


def test_what_came_from_python_is_given_again_in_python() -> None:
    both = ("model", "data")
    step = loading(f"try another: {PROBING} --surrogate MODEL", False, both)
    call = 'flatguard.audit("RUN", checks="fast", surrogates=[MODEL], model=model, data=data)'
    assert step == f"try another: {call}"
    assert "flatguard.audit('a run', checks=" in advice(step, Path("a run"))
    resumed = loading(RESUME, True, ("data",))
    assert resumed == 'flatguard.resume("RUN", data=data, allow_code=True)'
    assert needs_trust([resumed])
    assert loading("attack the temperature twin", False, both) == "attack the temperature twin"
