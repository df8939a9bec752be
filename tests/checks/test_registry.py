"""All checks, by name and in order; what did not run has not passed."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.evidence import evidence, judged_by

from flatguard.checks.check import Check
from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.registry import check_names, load_checks

CHECKS = load_checks()
TOLERANCE = 0.05
NEED_NO_PROBE = ("basin", "clean-accuracy", "recorded-mistakes")
"""They read what the attack recorded."""


@pytest.mark.parametrize("check", CHECKS, ids=check_names())
def test_what_did_not_run_has_not_passed(check: Check) -> None:
    finding = check.judge(evidence(), TOLERANCE)
    if check.name in NEED_NO_PROBE:
        assert finding.status == "pass"
    else:
        assert finding.status == "not-run"
        assert finding.value is None
        assert finding.next is not None


@pytest.mark.parametrize("check", CHECKS, ids=check_names())
def test_a_probe_that_could_not_run_is_not_run_and_says_why(check: Check) -> None:
    names = (
        "preflight",
        "determinism",
        "gradient-truth",
        "twins",
        "square-200",
        "longer-60",
        "targeted-110",
        "surrogate-ab",
    )
    failed = {n: ProbeEvidence({"ran": False, "reason": "the model is on strike"}) for n in names}
    finding = check.judge(evidence(probes=failed), TOLERANCE)
    if check.name not in NEED_NO_PROBE:
        assert finding.status == "not-run"
        assert "on strike" in finding.summary


def test_every_finding_names_its_source_and_is_in_order() -> None:
    findings = [check.judge(judged_by(), TOLERANCE) for check in CHECKS]
    assert all(finding.source for finding in findings)
    assert tuple(finding.check for finding in findings) == check_names()
    assert len(check_names()) == 16


def test_each_check_says_why_it_matters_and_probes_have_names_of_their_own() -> None:
    assert all(check.why and check.source for check in CHECKS)
    names = [probe.name for check in CHECKS for probe in check.probes]
    assert len(set(names)) == len(names) == 22
    assert [check.name for check in CHECKS if check.decisive] == [
        "discrepancy", "gradient-truth", "scale-free-loss", "determinism", "recorded-mistakes",
    ]  # fmt: skip


def test_names_are_read_without_torch_and_pandas() -> None:
    script = (
        "import sys; from flatguard.checks.registry import check_names; print(*check_names());"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert tuple(done.stdout.split()) == check_names()


def test_a_check_that_is_installed_meanwhile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entry points are read once, and again after an installation, as in a notebook."""
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "lantern" not in check_names()
    info = tmp_path / "lantern-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lantern\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flatguard.checks]\nlantern = lantern:CHECK\n")
    assert "lantern" in check_names()
