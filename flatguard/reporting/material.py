"""What a report is drawn from: a run folder, read once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from flatguard.detection.flagged import Detection, load_detection
from flatguard.errors import RunFolderError
from flatguard.geometry.budget import Budget
from flatguard.masking.evidence import Evidence
from flatguard.masking.verdict import VERDICT, Verdict, verdict_of
from flatguard.reporting.paths import Paths, read_paths
from flatguard.runs.store import SUMMARY, Run

NEEDED = {
    "clean_accuracy", "clean_interval", "robust_interval", "median_log_kappa_clean",
    "sample_forwards", "sample_backwards", "check_forwards", "seconds", "attack_seconds",
    "rows_unassigned", "outside_budget", "adversarial_sha256", "warnings",
}  # fmt: skip
"""What reports take from a run's summary, which may be of an older flatguard."""


@dataclass(frozen=True)
class Material:
    """A run with its verdict; whatever costs time is read when it is first asked for."""

    run: Run
    verdict: Verdict
    summary: dict[str, Any]

    @classmethod
    def of(cls, run: Run) -> Material:
        """The material of a judged run, after comparing its checksums.

        Raises:
            RunFolderError: the run is damaged, or was not judged yet.
        """
        run.verify()
        missing = NEEDED - set(run.summary)
        if missing:
            raise RunFolderError(
                f"{run.path / SUMMARY} has no {min(missing)}; flatguard audit {run.path} writes it "
                "anew"
            )
        verdict, summary = verdict_of(run), run.summary
        _refuse_strangers(run, verdict, summary)
        return cls(run, verdict, summary)

    @property
    def samples(self) -> pd.DataFrame:
        """A row per sample."""
        return self.run.samples

    @property
    def budget(self) -> Budget:
        """Norm and radius."""
        return self.run.spec.budget()

    @cached_property
    def evidence(self) -> Evidence:
        """What fell to what, without the trajectory."""
        return Evidence.of_samples(self.run)

    @cached_property
    def paths(self) -> Paths:
        """Loss and log κ along the attack, for every sample."""
        return read_paths(self.run)

    @cached_property
    def detection(self) -> Detection | None:
        """What a detector flags; None where none was asked."""
        return load_detection(self.run)

    def class_name(self, number: int) -> str:
        """A class as a person knows it."""
        names = self.run.manifest.data.classes
        known = names is not None and 0 <= number < len(names)
        return f"{names[number]} ({number})" if names and known else f"class {number}"


def _refuse_strangers(run: Run, verdict: Verdict, summary: dict[str, Any]) -> None:
    """Verdict and summary are no evidence: they must be the ones that were made of this run."""
    robust = float(run.samples["robust"].mean()) if len(run.samples) else 0.0
    same_run = summary["adversarial_sha256"] == run.adversarial_sha256()
    agree = (
        summary.get("sentence") == verdict.sentence
        and summary.get("corrected_robust_accuracy") == verdict.corrected_robust_accuracy
    )
    if not (same_run and agree and math.isclose(verdict.robust_accuracy, robust, abs_tol=1e-9)):
        raise RunFolderError(
            f"{run.path / VERDICT} or {SUMMARY} is not of this run's evidence; "
            f"flatguard audit {run.path} writes both anew"
        )
