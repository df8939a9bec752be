"""`flatguard audit`, and the commands that it advises."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.commands import CHECKPOINT, JUDGED, PGD, advised

import flatguard
from flatguard.checks.finding import TRUST
from flatguard.checks.verdict import EXIT_CODES


def test_a_verdict_judged_again_from_the_folder(cli, files: Path) -> None:
    first = cli(*CHECKPOINT, *PGD, "--json", "--out", "run")
    evidence = {f: f.stat().st_mtime_ns for f in Path("run/evidence").rglob("*") if f.is_file()}
    Path("weights.safetensors").unlink()  # the folder is enough
    again = cli("audit", "run", "--json")
    assert again.code == first.code
    summaries = [json.loads(result.out) for result in (first, again)]
    assert summaries[0] == summaries[1]
    shown = cli("audit", "run")
    assert shown.code == first.code
    for words in ("discrepancy", "gradient-truth", "not-run", "corrected robust accuracy", "next:"):
        assert words in shown.out
    after = {f: f.stat().st_mtime_ns for f in Path("run/evidence").rglob("*") if f.is_file()}
    assert after == evidence


@pytest.fixture
def right_on_all(files: Path) -> None:
    """Twelve images of two classes, all of which the checkpoint classifies as they are labelled."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        labels = tiny().eval()(images).argmax(1).numpy()
    chosen = np.concatenate([np.flatnonzero(labels == label)[:6] for label in (2, 3)])
    np.savez(files / "data.npz", images=pixels[chosen], labels=labels[chosen])


def test_the_missing_probes_are_run(cli, files: Path, right_on_all: None) -> None:
    bare = cli(*CHECKPOINT, *PGD, "--checks", "none", "--out", "run", "--json")
    assert (bare.code, json.loads(bare.out)["verdict"]) == (3, "inconclusive")
    assert json.loads(bare.out)["check_forwards"] == 0
    fast = cli("audit", "run", "--checks", "fast", "--allow-code", "--json")
    assert "checks fast: up to about" in fast.err
    assert json.loads(fast.out)["check_forwards"] > 0
    assert json.loads(fast.out)["verdict"] != "inconclusive"
    assert fast.code == EXIT_CODES[json.loads(fast.out)["verdict"]]


def test_advised_probes_run_where_the_spec_names_code(cli, files: Path) -> None:
    bare = cli(*CHECKPOINT, *PGD, "--checks", "none", "--out", "a run")
    fast, *_ = advised(bare)
    assert fast == ["audit", "a run", "--checks", "fast", "--allow-code"]
    for name in ("report.html", "report.json", "report.junit.xml", "report.md", "summary.json"):
        text = Path("a run", name).read_text(encoding="utf-8").replace("\\", "")
        assert "audit RUN --checks fast" in text
        assert text.count("audit RUN --checks") == text.count(" --allow-code"), name
    assert bare.out.count(TRUST) == 1
    assert all(Path("a run", name).read_text("utf-8").replace("&#39;", "'").count(TRUST) == 1
               for name in ("report.html", "report.md"))  # fmt: skip
    done = cli(*fast)
    assert done.code in JUDGED
    assert "cost of checks" in done.out
    assert advised(done) == [["audit", "a run", "--checks", "standard", "--allow-code"]]


def test_advice_without_code_asks_for_no_consent(cli) -> None:
    bare = cli("evaluate", "--model", "demo", *PGD, "--n-examples", "4", "--checks", "none")
    assert advised(bare)
    assert all("--allow-code" not in words for words in advised(bare))
    assert TRUST not in bare.out


BAD_AUDITS = {
    "no run": (["audit", "nowhere"], "is no run folder"),
    "a level that is none": (["audit", "run", "--checks", "thorough"], "expected one of none"),
    "a tolerance of 2": (["audit", "run", "--tolerance", "2"], "less than 1"),
    "other weights": (
        ["audit", "run", "--checks", "fast", "--allow-code"],
        "has other weights now",
    ),
    "code in the spec": (["audit", "run", "--checks", "fast"], "names code that would run here"),
    "damaged evidence": (["audit", "run"], "is damaged"),
}


@pytest.mark.parametrize("case", BAD_AUDITS)
def test_a_bad_audit_is_one_line_and_exit_2(case: str, cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--out", "run", "--checks", "fast" if "damaged" in case else "none")
    if case == "other weights":
        state = {name: value + 1.0 for name, value in tiny().state_dict().items()}
        save_file(state, files / "weights.safetensors")
    if case == "damaged evidence":
        file = files / "run" / "evidence" / "probes" / "twins" / "attempts.parquet"
        file.write_bytes(file.read_bytes()[:-1])
    arguments, expected = BAD_AUDITS[case]
    result = cli(*arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert expected in result.err


def test_no_command_changes_the_tolerance_of_a_run(cli, files: Path) -> None:
    def judged() -> tuple[float, float]:
        kept = [json.loads(Path(f"run/{name}.json").read_text()) for name in ("verdict", "summary")]
        return kept[0]["tolerance"], kept[1]["tolerance"]

    cli(*CHECKPOINT, *PGD, "--out", "run", "--tolerance", 0.25)
    assert judged() == (0.25, 0.25)
    landscape = ["geometry", "landscape", "run", "--directions", 1, "--steps", 1, "--allow-code"]
    assert cli(*landscape).code == 0
    assert judged() == (0.25, 0.25)
    assert cli("audit", "run").code in JUDGED
    assert judged() == (0.25, 0.25)
    cli("audit", "run", "--tolerance", 0.5)
    assert judged() == (0.5, 0.5)
    for again in (
        ["audit", "run", "--checks", "standard", "--allow-code"],
        [*landscape, "--restarts", 2],
        ["evaluate", "--resume", "run", "--allow-code"],
        ["report", "run"], ["compare", "run", "run"],
    ):  # fmt: skip
        assert cli(*again).code in JUDGED
        assert judged() == (0.5, 0.5), again
    Path("run/verdict.json").unlink()
    assert flatguard.audit("run").tolerance == 0.25


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of files")
@pytest.mark.parametrize("command", ["audit", "report"])
@pytest.mark.parametrize("largest", [0, 500, 3000, 20_000])
def test_no_room_for_verdict_and_report(cli, files: Path, command: str, largest: int) -> None:
    """One line and exit code 2; with room, the same bytes."""
    import resource

    cli(*CHECKPOINT, *PGD, "--checks", "none", "--out", "run", "--json")
    before = {file.name: file.read_bytes() for file in Path("run").iterdir() if file.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
        failed = cli(command, "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert failed.code == 2
    assert failed.err.strip().splitlines()[-1].startswith("flatguard: cannot write run/")
    assert "larger than this machine allows" in failed.err
    assert "Traceback" not in failed.err
    cli("audit", "run")
    after = {file.name: file.read_bytes() for file in Path("run").iterdir() if file.is_file()}
    assert after.keys() == before.keys()
    assert after["verdict.json"] == before["verdict.json"]
