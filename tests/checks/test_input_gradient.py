"""The check `input-gradient`: absent, zero, not finite."""

from typing import Any

import pytest
from support.preflight import judged, judged_without

from flatguard.checks.input_gradient import CHECK
from flatguard.checks.preflight.facts import InputGradient

GOOD = {"images": 32, "absent": False, "zero": 0, "not_finite": 0}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"absent": True}, "leaves torch's graph"),
        ({"absent": True, "error": "RuntimeError: no"}, "the image gets no gradient: RuntimeError"),
        ({"zero": 1}, "zero everywhere on 1 of 32"),
        ({"not_finite": 5, "zero": 2}, "not finite on 5 of 32"),
    ],
)
def test_each_fault_has_its_words(changes: dict[str, Any], text: str) -> None:
    found = judged(CHECK, gradient=InputGradient(**{**GOOD, **changes}))
    assert found.status == "warn"
    assert text in found.summary
    assert "--attack square" in (found.next or "")


def test_a_gradient_passes_and_an_unmeasured_one_does_not() -> None:
    assert (judged(CHECK).status, judged(CHECK).samples) == ("pass", 32)
    assert judged(CHECK, gradient=None).status == "not-run"
    assert judged_without(CHECK).status == "not-run"
