"""The published action: bash runs its steps as GitHub does, and its inputs are never code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import digits
from support.github_api import github

from flatguard.checks.registry import check_names

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
INSTALL, GATE, COMMENT = (step for step in STEPS if "run" in step)
HOSTILE = [
    "$(touch owned)", "`touch owned`", '"; touch owned; "', "'; touch owned; '", "a\ntouch owned",
]  # fmt: skip
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")

CONFIG = f"""
model: digits.safetensors
arch: {digits.__file__}:digits_net
dataset: digits.npz
attack: foolbox:LinfFastGradientAttack
norm: Linf
eps: 0.05
n_examples: 12
checks: none
threads: 1
gate:
  allow: [inconclusive, {", ".join(check_names())}]
"""


class Job:
    """A job of GitHub Actions in the folder of a project."""

    def __init__(self, project: Path, **inputs: str):
        self.project, self.temp = project, project.parent / "runner-temp"
        self.temp.mkdir(exist_ok=True)
        defaults = {name: one.get("default", "") for name, one in ACTION["inputs"].items()}
        self.values = {f"inputs.{n}": v for n, v in {**defaults, **inputs}.items()}
        self.values["github.event.pull_request.number"] = "7"
        self.values["inputs.token"] = "secret"
        self.summary, self.output = self.temp / "step-summary.md", self.temp / "output"

    def run(self, step: dict[str, Any], **environ: str) -> subprocess.CompletedProcess[str]:
        script = self.temp / "script.sh"
        script.write_text(step["run"])
        given = {
            name: EXPRESSION.sub(lambda found: self.values[found[1]], str(value))
            for name, value in step.get("env", {}).items()
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.project, capture_output=True, text=True, check=False, timeout=600,
            env={
                **os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "RUNNER_TEMP": str(self.temp),
                "GITHUB_STEP_SUMMARY": str(self.summary), "GITHUB_OUTPUT": str(self.output),
                "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_REPOSITORY": "owner/name",
                **given, **environ,
            },
        )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, digits_files: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(digits_files, folder)
    (folder / "release.yaml").write_text(CONFIG)
    (folder / "test_own.py").write_text("def test_of_the_project():\n    assert False\n")
    return folder


def test_its_scripts_hold_no_expression_and_its_actions_are_pinned() -> None:
    assert ACTION["runs"]["using"] == "composite"
    text = (ROOT / "action.yml").read_text("utf-8")
    for step in STEPS:
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"]
        else:
            assert re.fullmatch(r"actions/[a-z/-]+@[0-9a-f]{40}", step["uses"])
            assert re.search(rf"{re.escape(step['uses'])} # v[0-9.]+\n", text)


def test_the_gate_runs_keeps_its_run_and_shuts(project: Path) -> None:
    job = Job(project, config="release.yaml")
    done = job.run(GATE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert job.output.read_text() == "exit-code=0\n"
    assert "test_of_the_project" not in done.stdout
    assert "| corrected (upper bound) |" in job.summary.read_text("utf-8")
    (report,) = (job.temp / "flatguard-reports").glob("*/report.html")
    assert (job.temp / "flatguard-reports" / "gate.junit.xml").is_file()
    (kept,) = (job.temp / "flatguard-runs").glob("*/run/evidence/manifest.json")
    before = kept.stat().st_mtime_ns

    shutil.rmtree(job.temp / "flatguard-reports")
    job.output.unlink()
    old = job.temp / "flatguard-runs" / "old" / "run"
    shutil.copytree(kept.parents[1], old)
    os.utime(old / "report.html", (0, 0))
    (project / "release.yaml").write_text(CONFIG + "  min_robust_accuracy: 0.99\n")
    shut = job.run(GATE)
    assert shut.returncode == 1
    assert job.output.read_text() == "exit-code=1\n"
    assert "threshold[min_robust_accuracy]" in shut.stdout
    assert kept.stat().st_mtime_ns == before  # it was not attacked again
    assert "threshold[min_robust_accuracy]" in (job.temp / "flatguard-summary.md").read_text()
    assert report.is_file()  # judged again, and uploaded again
    assert not old.parent.exists()


def test_a_wrong_config_is_told_and_uploads_no_report(project: Path) -> None:
    job = Job(project, config="relase.yaml")
    done = job.run(GATE)
    assert done.returncode == 4
    assert job.output.read_text() == "exit-code=4\n"
    assert "no file relase.yaml" in done.stdout + done.stderr
    assert (job.temp / "flatguard-summary.md").read_text() == ""


@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_are_words_and_never_code(text: str, project: Path) -> None:
    python = project.parent / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@" >"$RUNNER_TEMP/typed"\n')
    python.chmod(0o755)
    job = Job(project, **{"config": text, "extras": text, "max-minutes": text})
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    for step, word in (
        (INSTALL, f"{ROOT}[{text}]"),
        (GATE, f"--flatguard-config={text}"),
        (COMMENT, "flatguard.integrations.pull_request"),
    ):
        assert job.run(step, PATH=path).returncode == 0
        typed = (job.temp / "typed").read_text().split("\0")
        assert word in typed
    assert not list(project.parent.rglob("owned"))


def test_no_extras_and_no_limit_are_no_words(project: Path) -> None:
    job = Job(project, config="release.yaml", extras="")
    python = project.parent / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@" >"$RUNNER_TEMP/typed"\n')
    python.chmod(0o755)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    job.run(INSTALL, PATH=path)
    assert str(ROOT) in (job.temp / "typed").read_text().split("\0")
    job.run(GATE, PATH=path)
    assert "--flatguard-max-minutes" not in (job.temp / "typed").read_text()


def test_the_comment_has_the_table_and_a_fork_has_a_notice(project: Path) -> None:
    job = Job(project, config="release.yaml")
    (job.temp / "flatguard-summary.md").write_text("### consistent\n")
    with github() as api:
        environ = {"GITHUB_API_URL": api.address, "FLATGUARD_OFFLINE": "0"}
        assert job.run(COMMENT, **environ).returncode == 0
        assert "### consistent" in api.comments[0]["body"]
        api.writing = 403
        done = job.run(COMMENT, **environ)
    assert done.returncode == 0
    assert done.stdout.startswith("::notice::flatguard did not comment")


def test_the_guide_shows_this_action() -> None:
    guide = (ROOT / "docs" / "how-to" / "action.md").read_text("utf-8")
    (workflow,) = re.findall(r"^```yaml\n(.*?)^```", guide, flags=re.MULTILINE | re.DOTALL)
    job = yaml.safe_load(workflow)["jobs"]["gate"]
    assert yaml.safe_load(workflow)["permissions"] == {"contents": "read", "pull-requests": "write"}
    for step in job["steps"]:
        assert re.fullmatch(r"[a-z/-]+@([0-9a-f]{40}|COMMIT)", step["uses"])
    assert set(job["steps"][-1]["with"]) <= set(ACTION["inputs"])
    for name in ACTION["inputs"]:
        assert f"`{name}`" in guide
    assert shlex.split("flatguard configs release")[0] in guide
