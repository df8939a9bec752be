import numpy as np
import pandas as pd
from support.pages import content, with_probes

from flatguard.checks.evidence import ProbeEvidence
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.logit_scales import LOGIT_SCALES
from flatguard.reporting.sections.section import NotMeasured
from flatguard.runs.run import Run


def test_each_scale_has_its_accuracy_and_median(run: Run) -> None:
    table = pd.DataFrame(
        {"sample": [0, 1, 0, 1], "factor": [1.0, 1.0, 0.1, 0.1],
         "log_kappa": [-4.0, -2.0, np.nan, 1.0], "fooled": [False, False, True, False],
         "fooled_by_best": [True, False, True, False]}
    )  # fmt: skip
    probe = ProbeEvidence({"ran": True, "steps": 7}, {"scales": table})
    found = content(LOGIT_SCALES, with_probes(run, scales=probe))
    assert found.data["scales"] == [
        {"factor": 0.1, "left": 0.5, "left_by_best": 0.5, "log_kappa": 1.0},
        {"factor": 1.0, "left": 1.0, "left_by_best": 0.5, "log_kappa": -3.0},
    ]
    assert "attacked for 7 steps" in found.intro
    accuracy, kappa = found.figures
    assert "is 50.0% to 100.0%" in accuracy.text.alt
    assert kappa.table is not None
    assert [row[0] for row in kappa.table.rows] == ["× 0.1", "× 1"]


def test_without_the_probe_the_command_is_named(run: Run) -> None:
    found = LOGIT_SCALES.build(JudgedRun.load(run))
    assert isinstance(found, NotMeasured)
    assert found.how == "flatguard audit RUN --checks standard"
