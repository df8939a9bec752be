"""One field in `flatguard/request.py` is a whole option: shown on a copy of the package.

The field is the one that CONTRIBUTING.md adds.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import digits
from support.examples import example

PACKAGE = Path(__file__).resolve().parents[1] / "flatguard"
FIELD = "\n" + example(
    Path(__file__).parents[1] / "CONTRIBUTING.md",
    "flatguard/request.py, in class EvaluationRequest",
)
BEFORE = "\n    def budget(self)"

USE = """
import io, json, sys
from contextlib import redirect_stdout
from pathlib import Path
import flatguard
from flatguard.cli.app import main
from flatguard.gate.config import config_of, schema

def call(*arguments):
    written = io.StringIO()
    try:
        with redirect_stdout(written):
            main(list(arguments))
    except SystemExit as stop:
        return stop.code, written.getvalue()

files, arch = Path(sys.argv[1]), sys.argv[2]
how = dict(
    arch=arch, data=str(files / "digits.npz"), eps="0.1", n_examples=4, checks="none",
    allow_code=True,
)
model = str(files / "digits.safetensors")
flatguard.evaluate(model, "torchattacks:FGSM", out="keyword", paper="one", **how)
typed = call(
    "evaluate", "--model", model, "--attack", "torchattacks:FGSM", "--arch", arch, "--dataset",
    how["data"], "--eps", "0.1", "--n-examples", "4", "--checks", "none", "--paper", "two",
    "--out", "typed", "--quiet",
)
manifest = lambda run: json.loads(Path(run, "evidence", "manifest.json").read_text())
print(json.dumps({
    "package": flatguard.__file__,
    "help": call("evaluate", "--help")[1],
    "schema": schema()["properties"].get("paper"),
    "config": config_of({"paper": "three"}).arguments(),
    "keyword": manifest("keyword"),
    "typed": manifest("typed"),
    "code": typed[0],
}))
"""


@pytest.fixture
def seen(tmp_path: Path, digits_files: Path) -> dict[str, Any]:
    copy = tmp_path / "copy"
    shutil.copytree(
        PACKAGE, copy / "flatguard", ignore=shutil.ignore_patterns("__pycache__", "configs")
    )
    request = copy / "flatguard" / "request.py"
    text = request.read_text("utf-8")
    assert text.count(BEFORE) == 1
    request.write_text(text.replace(BEFORE, FIELD + BEFORE), "utf-8")
    result = subprocess.run(
        [sys.executable, "-c", USE, str(digits_files), f"{digits.__file__}:digits_net"],
        env={**os.environ, "PYTHONPATH": str(copy)}, cwd=tmp_path, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert found["package"].startswith(str(copy))
    return found


def test_one_field_is_a_whole_option(seen: dict[str, Any]) -> None:
    assert "--paper <str>" in seen["help"] or "--paper TEXT" in seen["help"]
    assert "The paper that the run is for." in seen["help"]
    assert seen["schema"]["description"] == "The paper that the run is for."
    assert seen["config"] == {"paper": "three"}
    assert seen["keyword"]["request"]["paper"] == "one"
    assert seen["typed"]["request"]["paper"] == "two"
    assert seen["code"] in (0, 1, 3)
    assert seen["keyword"]["identity"] != seen["typed"]["identity"]
