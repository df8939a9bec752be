"""The check `output`: what is returned, and what to do about it."""

import pytest
from support.preflight import facts, judged, judged_without

from flatguard.checks.output_kind import CHECK
from flatguard.checks.preflight.facts import Output

WRONG = {
    "probabilities": "before the softmax",
    "sigmoid": "before the sigmoid",
    "one-hot": "before the decision",
    "clipped": "before they are clipped",
    "constant": "the input has no effect",
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_logits_is_a_warning_with_its_own_advice(kind: str) -> None:
    found = judged(CHECK, output=Output(kind=kind, lowest=0, highest=1, detail="above at 1"))
    assert (found.status, found.data["kind"]) == ("warn", kind)
    assert WRONG[kind] in (found.next or "")


@pytest.mark.parametrize("kind", ["logits", "log-probabilities"])
def test_logits_pass_with_their_range(kind: str) -> None:
    found = judged(CHECK, output=Output(kind=kind, lowest=-12.5, highest=-0.25))
    assert (found.status, found.next, found.samples) == ("pass", None, 100)
    assert "from -12.5 to -0.25" in found.summary


def test_where_it_was_not_measured_it_did_not_run() -> None:
    assert judged_without(CHECK).status == "not-run"
    found = judged(CHECK, output=None, failed={"clean": "finite logits for no image"})
    assert (found.status, facts().output is None) == ("not-run", False)
    assert "finite logits for no image" in found.summary
