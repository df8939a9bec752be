"""The layout of a run folder."""

import re
from pathlib import Path

import pytest
from support.run_folders import refused

from flatguard.runs.layout import committed
from flatguard.runs.run import Run, load_run


def test_the_layout_is_as_documented(attacked: Run) -> None:
    path = attacked.path
    files = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
    names = [
        "adversarial.safetensors", "block.json", "clean.safetensors", "samples.parquet",
        "timing.json", "trajectory.parquet",
    ]  # fmt: skip
    folders = committed(attacked.path)
    blocks = [f"evidence/blocks/{folders[i].name}/{name}" for i in range(3) for name in names]
    assert all(re.fullmatch(r"0000\d-[0-9a-f]{12}", folders[i].name) for i in range(3))
    assert [name for name in files if not name.startswith("evidence/probes/")] == [
        *blocks, "evidence/manifest.json", "report.html", "report.json", "report.junit.xml",
        "report.md", "report.sarif", "summary.json", "verdict.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["00000-{}", "00000-../..", "0", "00000-00000000000G", ".00000"])
def test_names_that_no_block_has(block: Path, name: str) -> None:
    """They count for nothing."""
    renamed = block.with_name(name.replace("/", "-"))
    block.rename(renamed)
    assert [facts.plan.index for facts in load_run("run").blocks] == [1]
    block.symlink_to(renamed)
    refused("is a link")
