import pytest
import torch
from support.architectures import tiny
from support.pages import content, evaluated, section_data
from torch import Tensor, nn

from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files
from flatguard.reporting.sections.along_attack import ALONG_ATTACK
from flatguard.runs.run import Run


def test_a_model_without_a_head_has_no_kappa(tiny_data: tuple[Tensor, Tensor]) -> None:
    headless = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Tanh())
    run = evaluated(tiny_data, "torchattacks:PGD", headless, eps="8/255", attack_args={"steps": 3})
    page = report_files(run).html.read_text("utf-8")
    assert "κ was not measured" in page
    assert 'id="kappa-along"' not in page
    assert 'id="loss-along"' in page


def test_of_many_samples_some_are_shown(
    tiny_data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flatguard.reporting.sections.along_attack._MOST_SAMPLES", 3)
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():
        labels = model(tiny_data[0]).argmax(1)
    how = {"eps": "1/255", "attack_args": {"steps": 4}, "checks": "none"}
    run = evaluated((tiny_data[0], labels), "torchattacks:PGD", model, **how)
    survived = run.samples.loc[run.samples["robust"], "sample"].to_numpy()
    assert len(survived) > 6
    found = section_data(run, "along-the-attack")
    step = -(-len(survived) // 3)
    kept = len(survived[::step])
    note = f"Of {len(survived)} samples that survived, {kept} evenly spaced ones are shown."
    assert note in report_files(run).html.read_text("utf-8")
    bands = found["data"]["loss"]["survived"]
    assert set(bands["samples"]) == {kept}
    rows = run.trajectory[run.trajectory["sample"].isin(survived[::step])]
    first = rows.groupby("sample").head(1)["loss"]
    assert bands["median"][0] == first.quantile(0.5, interpolation="nearest")


def test_the_bands_are_those_of_the_group(run: Run) -> None:
    found = content(ALONG_ATTACK, JudgedRun.load(run))
    survived = run.samples.loc[run.samples["robust"], "sample"]
    rows = run.trajectory[run.trajectory["sample"].isin(survived)]
    first = rows.sort_values("call").groupby("sample").head(1)["loss"]
    data = found.data["loss"]["survived"]
    assert data["median"][0] == first.quantile(0.5, interpolation="nearest")
    assert data["samples"][0] == len(survived)
    assert found.data["loss"]["fooled"]["samples"][0] == len(run.samples) - len(survived)
    loss, kappa = found.figures
    assert (loss.text.name, kappa.text.name) == ("loss-along", "kappa-along")
    assert loss.text.alt.startswith("Median of cross-entropy. fooled: from ")
