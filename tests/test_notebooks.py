"""The example notebooks: executed as they are committed, and executed again here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "notebooks"

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

SAYS = {
    "audit_my_defence": ["masked by unavailable-gradient: ", "consistent: ", "reported 90%"],
    "gate_my_model": ["exit code 0", "exit code 1", "masked by saturation"],
}


def outputs(notebook: Any) -> str:
    """All outputs as one text."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error", output
            data = output.get("data", {})
            found += [output.get("text", ""), data.get("text/html", ""), data.get("text/plain", "")]
    return "\n".join(found)


@pytest.mark.parametrize("name", SAYS)
def test_it_is_committed_with_its_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = outputs(notebook)
    assert not re.search(r"/(home|tmp|root|work|Users)/", text)
    for said in SAYS[name]:
        assert said in text


@pytest.mark.parametrize("name", SAYS)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    text = outputs(notebook)
    for said in SAYS[name]:
        assert said in text
    assert "<svg" in text
