"""A run with its verdict: everything that a report shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from flatguard.checks.basins import Basins, basins_of
from flatguard.checks.claims.leaderboard_comparison import (
    LeaderboardComparison,
    compare_with_leaderboard,
)
from flatguard.checks.claims.stored_claim import StoredClaim, load_claim
from flatguard.checks.evidence import Evidence
from flatguard.checks.verdict import VERDICT, Verdict, verdict_of
from flatguard.detection.flagging import Detection, load_detection
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError
from flatguard.geometry.budget import Budget
from flatguard.geometry.measures import SharpnessMeasure, measure_in
from flatguard.reporting.attack_paths import AttackPaths, read_attack_paths
from flatguard.runs.facts import Number
from flatguard.runs.layout import SUMMARY
from flatguard.runs.run import Run

_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _SummaryFields(BaseModel):
    """The fields of a run's summary that reports read; the file may be damaged or edited."""

    n_examples: Number
    clean_accuracy: _Share
    clean_interval: tuple[_Share, _Share]
    robust_interval: tuple[_Share, _Share]
    median_log_kappa_clean: Annotated[float, Field(allow_inf_nan=False)] | None
    median_log_logit_sharpness_clean: Annotated[float, Field(allow_inf_nan=False)] | None = None
    sample_forwards: Number
    sample_backwards: Number
    check_forwards: Number
    seconds: _Seconds
    attack_seconds: _Seconds
    rows_unassigned: Number
    outside_budget: Number
    adversarial_sha256: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class JudgedRun:
    """A run with its verdict; what takes long to read is read on first use."""

    run: Run
    verdict: Verdict
    summary: dict[str, Any]

    @classmethod
    def load(cls, run: Run) -> JudgedRun:
        """Read the verdict and the summary of a run, after comparing its checksums.

        Raises:
            RunFolderError: the run is damaged, or has no verdict of its own.
        """
        run.verify()
        check_summary(run)
        verdict, summary = verdict_of(run), run.summary
        _check_same_run(run, verdict, summary)
        return cls(run, verdict, summary)

    @property
    def samples(self) -> pd.DataFrame:
        """One row per sample."""
        return self.run.samples

    @property
    def sharpness(self) -> SharpnessMeasure:
        """The measure of sharpness that the run holds."""
        return measure_in(self.samples.columns)

    @property
    def budget(self) -> Budget:
        """Norm and radius."""
        return self.run.request.budget()

    @cached_property
    def evidence(self) -> Evidence:
        """Which attempts fool which samples, without the trajectory."""
        return Evidence.of_samples(self.run)

    def paths(self, samples: Sequence[int] | np.ndarray) -> AttackPaths:
        """Loss and log sharpness along the attack, for these samples."""
        return read_attack_paths(self.run, np.asarray(samples))

    @cached_property
    def basins(self) -> Basins:
        """Basins and the uncanny valley along the attack."""
        return basins_of(self.run)

    @cached_property
    def detection(self) -> Detection | None:
        """What the run's detector flags; None without a detector."""
        return load_detection(self.run)

    @cached_property
    def claim(self) -> StoredClaim | None:
        """The claim that the run is judged against; None without one."""
        return load_claim(self.run)

    @cached_property
    def leaderboard(self) -> LeaderboardComparison | None:
        """The run beside its entry of the leaderboard; None where its model is none."""
        correct, robust = (int(self.samples[name].sum()) for name in ("clean_correct", "robust"))
        return compare_with_leaderboard(self.run, (correct, len(self.samples)), robust)

    def class_name(self, label: int) -> str:
        """A class by its name and number."""
        names = self.run.manifest.data.classes
        if names is None or not 0 <= label < len(names):
            return f"class {label}"
        return f"{names[label]} ({label})"


def check_summary(run: Run) -> None:
    """Refuse a summary that lacks a number that reports read.

    Raises:
        RunFolderError: names the field, and the command that writes the file again.
    """
    try:
        _SummaryFields.model_validate(run.summary)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RunFolderError(
            f"{run.path / SUMMARY}: field {field} is missing or invalid; to write the file "
            f"again: flatguard audit {quoted(run.storage)}"
        ) from error


def _check_same_run(run: Run, verdict: Verdict, summary: dict[str, Any]) -> None:
    """Refuse a verdict or a summary that was made from another run's evidence."""
    robust = float(run.samples["robust"].mean()) if len(run.samples) else 0.0
    same_run = summary["adversarial_sha256"] == run.adversarial_sha256()
    agree = (
        summary.get("sentence") == verdict.sentence
        and summary.get("corrected_robust_accuracy") == verdict.corrected_robust_accuracy
    )
    if not (same_run and agree and math.isclose(verdict.robust_accuracy, robust, abs_tol=1e-9)):
        raise RunFolderError(
            f"{run.path / VERDICT} or {SUMMARY} was not made from this run's evidence; to write "
            f"both again: flatguard audit {quoted(run.storage)}"
        )
