"""The figure of Figure 15 stands alone: four panels, no script, every prompt's text escaped."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.prompt_figure import draw
from flatguard.studies.result import ModelFacts, Result


@pytest.fixture
def result() -> Result:
    rows = [[float(step + level) for step in range(4)] for level in range(5)]
    examples = [{"prompt": "a <b> & c", "log_kappa": rows[0], "loss": rows[1]}]
    return Result(
        study="walter-fig15", paper="walter2026", reference="Figure 15", claim="", claims=(),
        figures={"quantiles": [], "log_kappa": rows, "loss": rows, "examples": examples},
        models=(ModelFacts(name="tiny", source="here", weights_sha256="0"),), shown=None,
        versions={}, created="", seconds=0.0,
    )  # fmt: skip


def test_it_is_one_valid_drawing(result: Result, tmp_path: Path) -> None:
    draw(result, tmp_path / "figure.svg")
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}svg")) == 4
    titles = [one.text for one in root.findall(f"{space}text")]
    assert titles == ["median log κ", "median loss", "log κ of examples", "loss of examples"]
    assert not root.findall(f".//{space}script")
