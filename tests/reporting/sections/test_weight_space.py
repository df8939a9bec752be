"""Flatness in weight space, from the tables that its probes store."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from support.reports import SMALL

from benchmarks.synthetic import make_run
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.weight_space import weight_data, weight_figures, weight_sentence
from flatguard.runs.check_evidence import ProbeFacts, add_probe
from flatguard.runs.run import Run

PROTOCOL = {
    "kind": "weight-flatness", "part": "test", "around": {"xi": 0.5, "worst_xi": 0.25},
    "ascent": {"steps": 5, "restarts": 1},
}  # fmt: skip


def as_judged(run: Run) -> JudgedRun:
    return SimpleNamespace(run=run)  # type: ignore[return-value]


def losses(rises: dict[tuple[str, int], float]) -> pd.DataFrame:
    """The robust loss is 1 at the model, and rises by the same amount for every sample."""
    rows = [
        {"sample": sample, "case": case, "index": index, "clean_loss": 0.5 + rise / 2,
         "clean_wrong": False, "robust_loss": 1.0 + rise, "robust_wrong": False}
        for (case, index), rise in rises.items()
        for sample in range(8)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("weights") / "run", SMALL)
    rises = {("reference", 0): 0.0, ("average", 0): 0.2, ("average", 1): 0.4}
    table = losses({**rises, ("worst-robust", 0): 0.7})
    landscape = pd.DataFrame(
        {"sample": 0, "direction": [0, 0, 0, 1, 1, 1], "t": [-1.0, 0.0, 1.0] * 2,
         "clean_loss": 0.5, "robust_loss": [3.0, 1.0, 3.0, 5.0, 1.0, 5.0]}
    )  # fmt: skip
    probes = {
        "weights": (PROTOCOL, {"weight_losses": table}),
        "landscape": ({"kind": "landscape"}, {"landscape": landscape}),
    }
    for name, (facts, tables) in probes.items():
        probe = ProbeFacts(
            name=name, checks="none", ran=True, facts=facts, sample_forwards=1, seed=0
        )
        add_probe(run, probe, tables, {}, 1.0)
    return run


def test_flatness_is_the_mean_rise_of_the_robust_loss(measured: Run) -> None:
    data = weight_data(as_judged(measured))["test"]
    assert isinstance(data, dict)
    assert data["robust_loss"] == pytest.approx(1.0)
    assert data["flatness"] == pytest.approx(0.3)
    assert data["clean_flatness"] == pytest.approx(0.15)
    assert data["worst"] == pytest.approx(0.7)
    sentence = weight_sentence(as_judged(measured))
    assert "Eq. 1): 0.3 (95% interval " in sentence
    assert "ξ = 0.5 of their size, on average over 2 changed models. Lower is flatter;" in sentence
    assert sentence.endswith("worst change that was found within ξ = 0.25 it is higher by 0.7.")


def test_a_landscape_has_the_mean_and_the_range_of_its_directions(measured: Run) -> None:
    (figure,) = weight_figures(as_judged(measured))
    assert figure.table is not None
    assert figure.table.rows[0] == (figure.table.rows[0][0], "4", "0.5")
    assert "is 1 at the model's weights; the highest mean over 2 directions is 4" in figure.text.alt


def test_nothing_measured_is_nothing_shown(tmp_path: Path) -> None:
    run = as_judged(make_run(tmp_path / "run", SMALL))
    assert (weight_sentence(run), weight_data(run), weight_figures(run)) == ("", {}, [])
