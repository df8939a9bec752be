"""`--until-decided`: a masked model costs a fraction, its verdict is the same, others go on."""

from pathlib import Path
from typing import Any

import pytest
from support import digits
from support.evidence_files import evidence_files

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import load_probes, price_of_checks

MASKED: dict[str, Any] = {"logit_scale": 200.0, "eps": 0.15, "attack_args": {"steps": 10}}
ROUNDED: dict[str, Any] = {
    "arch": f"{digits.__file__}:rounded_net", "eps": 0.15, "attack_args": {"steps": 10},
    "checks": "standard", "n_examples": 60,
}  # fmt: skip


def evaluated(files: Path, folder: str, **fields: Any) -> flatguard.Run:
    honest = {"eps": digits.EPS, "attack_args": {"steps": 20, "alpha": 0.02}}
    arch = f"{digits.__file__}:digits_net"
    options = {**honest, "arch": arch, "checks": "fast", "threads": 1, **fields}
    return flatguard.evaluate(
        str(files / "digits.safetensors"), "torchattacks:PGD", data=str(files / "digits.npz"),
        out=folder, **options,
    )  # fmt: skip


class Interrupts(Silent):
    """A person who ends the checks at their nth stage."""

    def __init__(self, at: int):
        self.left = at

    def stage(
        self, name: str, total: int, calls_each: int | None = None, unit: str = "images"
    ) -> None:
        self.left -= name == "checks"
        if not self.left:
            raise KeyboardInterrupt


def test_a_masked_model_is_decided_by_some_survivors(digits_files: Path) -> None:
    whole = evaluated(digits_files, "whole", **MASKED)
    run = evaluated(digits_files, "run", until_decided=True, **MASKED)
    one, other = verdict_of(whole), verdict_of(run)
    assert (other.verdict, other.mechanism) == (one.verdict, one.mechanism)
    assert one.verdict == "masked"
    decided = other.decided_by
    assert one.decided_by is None
    assert decided is not None
    assert decided.fooled <= decided.samples <= decided.of / 2
    assert f"{decided.samples} survivors, drawn at random from {decided.of}" in other.sentence
    low, high = other.corrected_interval
    assert low <= one.corrected_robust_accuracy <= high
    assert high - low > one.corrected_interval[1] - one.corrected_interval[0]
    assert price_of_checks(run) < 0.7 * price_of_checks(whole)
    assert "targeted-5" not in load_probes(run)
    again = flatguard.audit(run)
    assert again == other
    loose = flatguard.audit(run, tolerance=0.9)
    assert loose.verdict == "inconclusive"  # nobody has looked at the others


def test_a_longer_search_confirms_what_is_no_saturation(digits_files: Path) -> None:
    """Where the process ends before it is made, it is made when it goes on."""
    whole = verdict_of(evaluated(digits_files, "whole", **ROUNDED))
    run = evaluated(digits_files, "run", until_decided=True, **ROUNDED)
    found = verdict_of(run)
    assert (found.verdict, found.mechanism) == (whole.verdict, whole.mechanism)
    assert (found.verdict, found.mechanism) == ("masked", "unavailable-gradient")
    assert found.decided_by is not None
    kept = load_probes(run)
    assert "longer-60-standard-draw1" in kept
    assert "longer-60" not in kept
    stages = sum("-standard-draw" in name for name in kept)
    with pytest.raises(KeyboardInterrupt):
        evaluated(
            digits_files, "again", until_decided=True, progress=Interrupts(stages + 1), **ROUNDED
        )
    again = flatguard.resume("again", allow_code=True)
    assert evidence_files(again.path) == evidence_files(run.path)


@pytest.mark.parametrize("at", [3, 5])
def test_an_interrupted_run_decides_alike(at: int, digits_files: Path) -> None:
    whole = evaluated(digits_files, "whole", until_decided=True, **MASKED)
    with pytest.raises(KeyboardInterrupt):
        evaluated(digits_files, "run", until_decided=True, progress=Interrupts(at), **MASKED)
    assert flatguard.audit("run").verdict in ("inconclusive", "masked")
    run = flatguard.resume("run", allow_code=True)
    assert evidence_files(run.path) == evidence_files(whole.path)


def test_an_honest_model_is_attacked_as_a_whole(digits_files: Path) -> None:
    whole = evaluated(digits_files, "whole", n_examples=80)
    run = evaluated(digits_files, "run", n_examples=80, until_decided=True)
    assert verdict_of(run).verdict == verdict_of(whole).verdict == "consistent"
    assert verdict_of(run).decided_by is None
    kept = load_probes(run)
    assert kept["decided-fast"].facts["state"] == "undecided"
    assert "twins-fast-draw1" in kept
    one, other = verdict_of(whole), verdict_of(run)
    assert other.corrected_robust_accuracy == one.corrected_robust_accuracy
    assert kept["twins"].files == load_probes(whole)["twins"].files
