from dataclasses import replace

import pytest
from support.pages import content

from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.twins import TWINS, why_no_attempts
from flatguard.runs.run import Run


def test_each_attempt_leaves_its_share(run: Run) -> None:
    judged = JudgedRun.load(run)
    data = content(TWINS, judged).data
    survivors = run.samples.loc[run.samples["robust"], "sample"]
    n = len(run.samples)
    assert data["audited attack"]["accuracy"] == len(survivors) / n
    corrected = judged.verdict.corrected_robust_accuracy
    assert data["worst case (corrected)"]["accuracy"] == pytest.approx(corrected)
    attempts = judged.evidence.attempts
    fooled = attempts[(attempts["attempt"] == "temperature") & attempts["fooled"].astype(bool)]
    left = len(set(survivors) - set(fooled["sample"]))
    assert data["logits ÷ temperature"]["accuracy"] == left / n
    shares = [row["accuracy"] for row in data.values()]
    assert shares == sorted(shares, reverse=True)


def test_no_attempt_has_a_reason_and_a_command(run: Run) -> None:
    judged = JudgedRun.load(run)
    judged.__dict__["evidence"] = replace(judged.evidence, probes={})
    found = why_no_attempts(judged)
    assert found is not None
    assert found.how == "flatguard audit RUN --checks fast"
    assert TWINS.build(judged) == found
    lost = judged.evidence.samples.assign(robust=False)
    judged.__dict__["evidence"] = replace(judged.evidence, samples=lost)
    found = why_no_attempts(judged)
    assert found is not None
    assert found.how is None
