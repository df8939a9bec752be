"""A checkpoint's numbers are those of its run folder."""

from pathlib import Path

import pytest

from flatguard.checks.weight_space.summary import weight_losses
from flatguard.runs.run import load_run


def test_a_row_is_what_the_evidence_says(checkpoints: Path, answer: dict) -> None:
    first, last = answer["checkpoints"]
    assert [first["epoch"], last["epoch"]] == [1, 2]
    assert first["run"] == last["run"] == "at-s0"
    run = load_run(checkpoints / "out" / "at-s0-epoch-2")
    assert last["rerr"] == pytest.approx(1 - run.samples["robust"].mean())
    losses = weight_losses(run)["test"].table
    means = losses.groupby(["case", "index"])[["clean_loss", "robust_loss"]].mean()
    reference = means.loc[("reference", 0)]
    assert last["rloss"] == pytest.approx(reference["robust_loss"])
    average = means.loc["average"].mean() - reference
    assert last["flatness"] == pytest.approx(average["robust_loss"])
    assert last["flatness_clean"] == pytest.approx(average["clean_loss"])
    assert last["flatness_interval"][0] < last["flatness"] < last["flatness_interval"][1]
    assert last["gap"] == pytest.approx(last["rloss"] - last["training_rloss"])
    wrong = run.samples["clean_correct"].to_numpy() == 0
    own = losses[losses["case"] == "reference"].sort_values("sample")
    assert last["rloss_incorrect"] == pytest.approx(own["robust_loss"][wrong].mean())
    assert last["rloss_correct"] == pytest.approx(own["robust_loss"][~wrong].mean())
    assert last["worst"] >= 0
    (row,) = answer["table"]
    assert row["last"] == last
    best = min(answer["checkpoints"], key=lambda c: c["held_out_rerr"])
    assert row["stopped"] == {"epoch": best["epoch"], "rerr": best["rerr"]}
