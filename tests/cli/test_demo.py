"""`flatguard demo`: what it refuses before it spends anything; tests/test_readme.py runs it."""

from pathlib import Path

import pytest

from flatguard.cli.demo import STEPS


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_that_exists_is_kept_as_it_is(kind: str, tmp_path: Path, cli) -> None:
    out = tmp_path / "mine"
    if kind == "folder":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out.write_text("mine")
    found = cli("demo", "--out", "mine")
    assert found.code == 2
    assert found.out == ""
    assert found.err == "flatguard: mine exists already; name another folder with --out\n"
    kept = out / "notes.txt" if kind == "folder" else out
    assert kept.read_text() == "mine"


def test_an_address_is_refused(tmp_path: Path, cli) -> None:
    found = cli("demo", "--out", "s3://bucket/demo")
    assert found.code == 2
    assert found.err == (
        "flatguard: --out: expected a folder of this machine, got s3://bucket/demo\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_last_two_steps_differ_in_the_scale_only() -> None:
    plain, scaled = (step.command for step in STEPS[1:])
    assert scaled.replace(" --logit-scale 100", "") == plain
    assert all("torchattacks" not in step.attack for step in STEPS)  # an extra
