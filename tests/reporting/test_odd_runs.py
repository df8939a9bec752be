"""Reports of real runs that lack something: a radius, a head, blocks, survivors."""

import json
from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from torch import Tensor, nn

import flatguard
from flatguard.errors import FlatguardError
from flatguard.reporting.report import report_files, write_report
from flatguard.runs.run import Run, load_run


def section(run: Run, name: str) -> dict[str, object]:
    document = json.loads(report_files(run).json.read_text("utf-8"))
    found: dict[str, object] = next(s for s in document["sections"] if s["name"] == name)
    return found


def small(data: tuple[Tensor, Tensor], attack: str, model: nn.Module, **how: object) -> Run:
    torch.manual_seed(0)
    return flatguard.evaluate(model, attack, data=data, out="run", **how)  # type: ignore[arg-type]


def test_an_attack_that_looks_for_near_examples(tiny_data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():  # labels that the model gives, so that there is something to lose
        labels = model(tiny_data[0]).argmax(1)
    run = small((tiny_data[0], labels), "torchattacks:DeepFool", model, eps=0.5)
    data = section(run, "accuracy-against-radius")["data"]
    assert isinstance(data, dict)
    fooled = run.samples[run.samples["adv_prediction"] != run.samples["label"]]
    assert len(fooled) > 2
    assert data["no_example_within"] == sorted(fooled["distance"].tolist())
    assert 'id="accuracy-distance"' in report_files(run).html.read_text("utf-8")


def test_a_model_without_a_head_has_no_kappa(tiny_data: tuple[Tensor, Tensor]) -> None:
    headless = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Tanh())
    run = small(tiny_data, "torchattacks:PGD", headless, eps="8/255", attack_args={"steps": 3})
    page = report_files(run).html.read_text("utf-8")
    assert "κ was not measured" in page
    assert 'id="kappa-along"' not in page
    assert 'id="loss-along"' in page


def test_nothing_right_and_nothing_judged(tiny_data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():
        wrong = (model(tiny_data[0]).argmax(1) + 1) % 4
    how = {"eps": "8/255", "attack_args": {"steps": 2}, "checks": "none"}
    run = small((tiny_data[0], wrong), "torchattacks:PGD", model, **how)
    for name in ("along-the-attack", "where-samples-ended", "other-logits", "discrepancy"):
        assert section(run, name)["measured"] is False
    assert section(run, "samples")["measured"]


class Breaks(nn.Module):
    """Raises at a late call, as a full card does."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = tiny(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 14:
            raise RuntimeError("out of memory")
        logits: Tensor = self.net(x)
        return logits


def test_an_incomplete_run_says_so(tiny_data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(FlatguardError, match="out of memory"):
        small(
            tiny_data, "torchattacks:PGD", Breaks(), eps="8/255", attack_args={"steps": 3},
            batch_size=5,
        )  # fmt: skip
    run = load_run(Path("run"))
    assert not run.complete
    assert run.blocks
    flatguard.audit(run)
    write_report(run)
    assert "incomplete" in report_files(run).html.read_text("utf-8")
    assert json.loads(report_files(run).json.read_text("utf-8"))["complete"] is False


def test_of_many_samples_some_are_followed(
    tiny_data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flatguard.reporting.sections.along_attack.FOLLOWED", 3)
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():
        labels = model(tiny_data[0]).argmax(1)
    how = {"eps": "1/255", "attack_args": {"steps": 4}, "checks": "none"}
    run = small((tiny_data[0], labels), "torchattacks:PGD", model, **how)
    survived = run.samples.loc[run.samples["robust"], "sample"].to_numpy()
    assert len(survived) > 6
    found = section(run, "along-the-attack")
    step = -(-len(survived) // 3)
    kept = len(survived[::step])
    told = f"Of {len(survived)} that survived, {kept} are followed, evenly chosen."
    assert told in report_files(run).html.read_text("utf-8")
    bands = found["data"]["loss"]["survived"]  # type: ignore[index]
    assert set(bands["samples"]) == {kept}
    rows = run.trajectory[run.trajectory["sample"].isin(survived[::step])]
    first = rows.groupby("sample").head(1)["loss"]
    assert bands["median"][0] == first.quantile(0.5, interpolation="nearest")
