import pandas as pd
import torch
from support.architectures import tiny
from support.pages import content, evaluated, section_data, with_probes
from torch import Tensor

from flatguard.checks.evidence import ProbeEvidence
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files
from flatguard.reporting.sections.radius import RADIUS
from flatguard.runs.run import Run


def test_an_attack_that_looks_for_near_examples(tiny_data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():  # labels that the model gives, so that there is something to lose
        labels = model(tiny_data[0]).argmax(1)
    run = evaluated((tiny_data[0], labels), "torchattacks:DeepFool", model, eps=0.5)
    data = section_data(run, "accuracy-against-radius")["data"]
    assert isinstance(data, dict)
    fooled = run.samples[run.samples["adv_prediction"] != run.samples["label"]]
    assert len(fooled) > 2
    assert data["no_example_within"] == sorted(fooled["distance"].tolist())
    assert 'id="accuracy-distance"' in report_files(run).html.read_text("utf-8")


def test_a_sweep_is_shown_at_its_radii(run: Run) -> None:
    eps = 8 / 255
    table = pd.DataFrame(
        {"sample": [0, 1, 2, 3] * 2, "sight": ["raw"] * 4 + ["best"] * 4, "eps": 2 * eps,
         "fooled": [False] * 5 + [True, True, True]}
    )  # fmt: skip
    probe = ProbeEvidence({"ran": True}, {"sweep": table})
    found = content(RADIUS, with_probes(run, sweep=probe))
    rows = {row["direction"]: row for row in found.data["sweep"]}
    assert (rows["raw"]["accuracy"], rows["best"]["accuracy"]) == (1.0, 0.25)
    assert rows["best"]["samples"] == 4
    figure = found.figures[0]
    assert figure.table is not None
    assert figure.table.rows[2][0] == "×2"
    assert figure.table.rows[2][-1].startswith("25.0%, 95%")
    assert "At the largest radius: 25.0% of 4 samples" in figure.text.alt


def test_without_a_sweep_the_command_is_named(run: Run) -> None:
    found = content(RADIUS, JudgedRun.load(run))
    assert found.data["sweep"] is None
    assert found.intro.endswith("flatguard audit RUN --checks standard")
