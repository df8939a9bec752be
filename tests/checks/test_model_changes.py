"""The check `model-changes`: mode, parameters and buffers."""

from support.preflight import judged, judged_without

from flatguard.checks.model_changes import CHECK


def test_mode_and_values_are_named() -> None:
    found = judged(CHECK, mode_changes=("bn1",), value_changes=("bn1.running_mean",))
    assert found.status == "warn"
    assert "switch to training mode: bn1; calls change the values of bn1.running_mean" in (
        found.summary
    )
    assert "model.eval()" in (found.next or "")
    assert judged(CHECK, value_changes=("seen",)).status == "warn"
    assert judged(CHECK, mode_changes=("the model itself",)).status == "warn"


def test_what_computes_as_in_training_is_added() -> None:
    found = judged(CHECK, mode_changes=("a",), trained_parts=("batch normalisation", "dropout"))
    assert "in training mode: batch normalisation and dropout" in found.summary
    assert judged(CHECK, trained_parts=("dropout",)).status == "pass"


def test_a_model_that_stays_as_it_was_passes() -> None:
    assert (judged(CHECK).status, judged(CHECK).samples) == ("pass", 300)
    assert judged_without(CHECK).status == "not-run"
    assert judged(CHECK, clean=None).status == "not-run"
