"""One network: AutoAttack standard, the cascade, and the checks after PGD-20, on the same images.

Seconds are the processor time of this process.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import flatguard
from benchmarks.autoattack_parity.networks import Case
from benchmarks.bare_autoattack import BATCH, autoattack_standard
from benchmarks.masking_zoo.networks import Network
from flatguard.checks.evidence import Evidence
from flatguard.runs.run import Run

SEED = 20


@dataclass(frozen=True)
class Attacked:
    """What AutoAttack standard or the cascade leaves.

    Attributes:
        right: the samples that stay right, of the first `count`.
        forwards: rows that went forward; the run's clean and verifying passes are the cascade's.
        backwards: rows whose gradient came back.
        seconds: that it took, and with the cascade the whole run.
        warned: whether the attack warned.
    """

    right: list[int]
    forwards: int
    backwards: int
    seconds: float
    warned: bool = False


@dataclass(frozen=True)
class Checked:
    """What the checks leave after an audited PGD-20.

    Attributes:
        clean, reported, right: the samples that are right clean, after PGD-20 and after the checks.
        forwards: rows that went forward in the checks.
        verdict: in words.
        mechanism: of the verdict.
        seconds: that the checks took, with the attack.
    """

    clean: int
    reported: int
    right: list[int]
    forwards: int
    verdict: str
    mechanism: str | None
    seconds: float


def by_autoattack(case: Case) -> Attacked:
    """AutoAttack standard, called directly."""
    network, images, labels = _loaded(case)
    found = autoattack_standard(network.module, images, labels, network.eps, SEED)
    return Attacked(found.right, found.forwards, found.backwards, found.seconds)


def by_cascade(case: Case) -> Attacked:
    """A run of `--attack cascade` without checks."""
    run = _evaluated(case, "cascade", {}, "none")
    summary = run.run.summary
    return Attacked(
        sorted(run.evidence.reported),
        int(summary["sample_forwards"]),
        int(summary["sample_backwards"]),
        run.seconds,
        any(warning.startswith("cascade: ") for warning in summary["warnings"]),
    )


def by_checks(case: Case, checks: str) -> Checked:
    """flatguard's checks after PGD-20 from the clean image."""
    args = {"steps": 20, "alpha": case.build().eps / 4, "random_start": False}
    found = _evaluated(case, "torchattacks:PGD", args, checks)
    summary, evidence = found.run.summary, found.evidence
    return Checked(
        clean=int(found.run.samples["clean_correct"].sum()),
        reported=len(evidence.reported),
        right=sorted(evidence.standing - evidence.fooled),
        forwards=int(summary["check_forwards"]),
        verdict=str(summary["verdict"]),
        mechanism=summary["mechanism"],
        seconds=found.seconds,
    )


@dataclass(frozen=True)
class _Evaluated:
    """A run whose folder is gone, what was read of it before, and the seconds that it took."""

    run: Run
    evidence: Evidence
    seconds: float


def _evaluated(case: Case, attack: str, args: dict[str, Any], checks: str) -> _Evaluated:
    network, images, labels = _loaded(case)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = flatguard.evaluate(
            network.module,
            attack,
            data=(images, labels),
            norm="Linf",
            eps=network.eps,
            attack_args=args,
            n_examples=len(labels),
            batch_size=BATCH,
            out=Path(folder) / "run",
            checks=checks,
        )
        seconds = time.process_time() - began
        evidence = Evidence.of_samples(run)
        _ = run.summary, run.samples  # read while they are there
    return _Evaluated(run, evidence, round(seconds, 1))


def _loaded(case: Case) -> tuple[Network, Tensor, Tensor]:
    network = case.build()
    return network, network.images[: case.count].clone(), network.labels[: case.count].clone()
