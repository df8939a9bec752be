"""What a report is drawn from: a run folder, read once."""

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
from flatguard.checks.evidence import Evidence
from flatguard.checks.verdict import VERDICT, Verdict, verdict_of
from flatguard.detection.flagging import Detection, load_detection
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError
from flatguard.geometry.budget import Budget
from flatguard.reporting.attack_paths import Paths, read_paths
from flatguard.runs.facts import Number
from flatguard.runs.layout import SUMMARY
from flatguard.runs.run import Run

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Needed(BaseModel):
    """What reports take from a run's summary, which may be of an older flatguard, or of anybody."""

    clean_accuracy: Share
    clean_interval: tuple[Share, Share]
    robust_interval: tuple[Share, Share]
    median_log_kappa_clean: Annotated[float, Field(allow_inf_nan=False)] | None
    sample_forwards: Number
    sample_backwards: Number
    check_forwards: Number
    seconds: Seconds
    attack_seconds: Seconds
    rows_unassigned: Number
    outside_budget: Number
    adversarial_sha256: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class JudgedRun:
    """A run with its verdict; whatever costs time is read when it is first asked for."""

    run: Run
    verdict: Verdict
    summary: dict[str, Any]

    @classmethod
    def load(cls, run: Run) -> JudgedRun:
        """The judged of a judged run, after comparing its checksums.

        Raises:
            RunFolderError: the run is damaged, or was not judged yet.
        """
        run.verify()
        try:
            _Needed.model_validate(run.summary)
        except ValidationError as error:
            lacking = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise RunFolderError(
                f"{run.path / SUMMARY} has no {lacking}, or no fitting one; flatguard audit "
                f"{quoted(run.storage)} writes it anew"
            ) from error
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
        return self.run.request.budget()

    @cached_property
    def evidence(self) -> Evidence:
        """What fell to what, without the trajectory."""
        return Evidence.of_samples(self.run)

    def paths(self, samples: Sequence[int] | np.ndarray) -> Paths:
        """Loss and log κ along the attack, for these samples."""
        return read_paths(self.run, np.asarray(samples))

    @cached_property
    def basins(self) -> Basins:
        """Basins and the uncanny valley along the attack."""
        return basins_of(self.run)

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
            f"flatguard audit {quoted(run.storage)} writes both anew"
        )
