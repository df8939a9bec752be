from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.pages import content

from flatguard.geometry.basin import LOSS_TOLERANCE
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.after_attack import AFTER_ATTACK
from flatguard.reporting.sections.section import NotMeasured
from flatguard.runs.run import Run


def test_the_increase_of_the_loss_is_by_outcome(run: Run) -> None:
    found = content(AFTER_ATTACK, JudgedRun.load(run))
    samples = run.samples.assign(increase=run.samples["adv_loss"] - run.samples["clean_loss"])
    by_outcome = samples.groupby("robust")["increase"].median()
    data = found.data["loss_increase"]
    assert data["survived"]["median"] == pytest.approx(by_outcome[True])
    assert data["fooled"]["median"] == pytest.approx(by_outcome[False])
    kappa = found.data["log_kappa"]["adversarial"]
    assert kappa["median"] == pytest.approx(run.samples["adv_log_kappa"].median())


def test_samples_within_the_tolerance_are_counted(run: Run) -> None:
    judged = JudgedRun.load(run)
    samples = run.samples.copy()
    rises = np.full(len(samples), LOSS_TOLERANCE / 2)
    rises[:10] = 3 * LOSS_TOLERANCE
    samples["adv_loss"] = samples["clean_loss"] + rises
    changed = SimpleNamespace(samples=samples, path=run.path)
    found = content(AFTER_ATTACK, replace(judged, run=changed))  # type: ignore[arg-type]
    assert "For 50 samples of 60 the loss did not" in found.figures[0].text.caption


def test_without_finite_losses_nothing_is_shown(run: Run) -> None:
    judged = JudgedRun.load(run)
    lost = run.samples.assign(adv_loss=np.nan)
    fake = replace(judged, run=SimpleNamespace(samples=lost))  # type: ignore[arg-type]
    assert isinstance(AFTER_ATTACK.build(fake), NotMeasured)
