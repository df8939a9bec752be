"""The check `input-writes`."""

from support.preflight import judged, judged_without

from flatguard.checks.input_writes import CHECK


def test_a_write_is_a_warning_with_its_fix() -> None:
    found = judged(CHECK, writes_input=True)
    assert found.status == "warn"
    assert "x = x - mean" in (found.next or "")


def test_an_input_that_stays_passes_and_an_unwatched_one_does_not() -> None:
    assert judged(CHECK).status == "pass"
    assert judged(CHECK, writes_input=None).status == "not-run"
    assert judged_without(CHECK).status == "not-run"
