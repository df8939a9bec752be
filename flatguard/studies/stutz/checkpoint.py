"""One checkpoint in numbers: robust loss, its flatness, robust error; from its run folder alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from flatguard.errors import RunFolderError
from flatguard.masking.statistics import CONFIDENCE_LEVEL, interval
from flatguard.runs.probe_store import ProbeFacts, load_probes, load_tables
from flatguard.runs.store import Run

RESAMPLES = 1000
EPOCH = re.compile(r"(\d+)$")

Ends = tuple[float, float] | None


class Checkpoint(BaseModel):
    """A checkpoint's row of Table 1, and what Figures 1, 2, 5, 6 and 7 plot.

    What was not measured is None. Intervals are 95%.

    Attributes:
        folder: the name of its run's.
        run: the training run: the name of the checkpoint's folder.
        epoch: the number that its name ends with.
        weights_sha256: of the model.
        samples: how many test samples.
        attack: that the robust error is against.
        rerr: robust error against that attack; a masked one is too low.
        rloss: mean robust loss under `protocol`; of the samples that are right when clean, and of
            those that are wrong.
        flatness: average case in the robust loss, Eq. (1); `_clean` in the clean loss, `worst` in
            the worst case.
        training_rloss, training_rerr, training_flatness: on training samples; the error is against
            PGD.
        gap: rloss - training_rloss, robust generalisation.
        held_out_rerr: against PGD, on samples that only choose an epoch.
        protocol: the attack of the robust losses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    run: str
    epoch: int | None
    weights_sha256: str
    samples: int
    attack: str
    protocol: str
    clean_error: float
    rerr: float
    rerr_interval: Ends
    rloss: float | None = None
    rloss_interval: Ends = None
    rloss_correct: float | None = None
    rloss_incorrect: float | None = None
    flatness: float | None = None
    flatness_interval: Ends = None
    flatness_clean: float | None = None
    worst: float | None = None
    worst_clean: float | None = None
    training_rloss: float | None = None
    training_rerr: float | None = None
    training_flatness: float | None = None
    gap: float | None = None
    held_out_rerr: float | None = None


@dataclass(frozen=True)
class Part:
    """What a run's `weight-flatness` probe has of one part of the data."""

    facts: ProbeFacts
    losses: pd.DataFrame

    def matrix(self, case: str, column: str) -> np.ndarray:
        """A row for each model of the case, a column for each sample."""
        chosen = self.losses[self.losses["case"] == case]
        found: np.ndarray = chosen.pivot(index="index", columns="sample", values=column).to_numpy()
        return found

    def rises(self, case: str, column: str) -> np.ndarray:
        """By how much each sample's loss is above the reference, at each model of the case."""
        found: np.ndarray = self.matrix(case, column) - self.matrix("reference", column)
        return found


def parts_of(run: Run) -> dict[str, Part]:
    """The weight-flatness probes of a run by part: `test`, `training`, `held-out`.

    Raises:
        RunFolderError: two protocols were measured on one part, and nothing says which is meant.
    """
    found: dict[str, Part] = {}
    for name, facts in load_probes(run).items():
        if facts.ran and facts.facts.get("kind") == "weight-flatness":
            part = str(facts.facts["part"])
            if part in found:
                raise RunFolderError(
                    f"{run.path} holds two protocols of weight flatness on {part} samples; measure "
                    f"into another folder, or delete one ({name}, {found[part].facts.name})"
                )
            found[part] = Part(facts, load_tables(run, facts)["weight_losses"])
    return found


def checkpoint_of(run: Run) -> Checkpoint:
    """What its run folder says about a checkpoint.

    Raises:
        RunFolderError: the run is incomplete, or its flatness was not measured.
    """
    parts = parts_of(run)
    if not run.complete or "test" not in parts:
        raise RunFolderError(
            f"{run.path} has no weight flatness; flatguard geometry robust-flatness measures it"
        )
    samples, spec = run.samples, run.spec
    n, fell = len(samples), int((~samples["robust"]).sum())
    model, ascent = Path(spec.model), parts["test"].facts.facts["ascent"]
    epoch = EPOCH.search(model.stem)
    return Checkpoint(
        folder=run.path.name,
        run=model.parent.name or model.stem,
        epoch=None if epoch is None else int(epoch[1]),
        weights_sha256=run.manifest.target.weights_sha256,
        samples=n,
        attack=spec.attack,
        protocol=f"PGD-{ascent['steps']} with {ascent['restarts']} restarts",
        clean_error=1.0 - float(samples["clean_correct"].mean()),
        rerr=fell / n,
        rerr_interval=interval(fell, n),
        **_of_test(parts["test"]),
        **_of_training(parts.get("training"), parts["test"]),
        held_out_rerr=_error(parts.get("held-out")),
    )


def _of_test(part: Part) -> dict[str, Any]:
    loss = part.matrix("reference", "robust_loss")[0]
    wrong = part.matrix("reference", "clean_wrong")[0].astype(bool)
    rises = part.rises("average", "robust_loss")
    return {
        "rloss": _mean(loss),
        "rloss_interval": _ends(loss[None, :]),
        "rloss_correct": _mean(loss[~wrong]),
        "rloss_incorrect": _mean(loss[wrong]),
        "flatness": _mean(rises),
        "flatness_interval": _ends(rises),
        "flatness_clean": _mean(part.rises("average", "clean_loss")),
        "worst": _worst(part.rises("worst-robust", "robust_loss")),
        "worst_clean": _worst(part.rises("worst-clean", "clean_loss")),
    }


def _of_training(part: Part | None, test: Part) -> dict[str, Any]:
    if part is None:
        return {}
    there, here = _reference(part), _reference(test)
    return {
        "training_rloss": there,
        "training_rerr": _error(part),
        "training_flatness": _mean(part.rises("average", "robust_loss")),
        "gap": None if here is None or there is None else here - there,
    }


def _reference(part: Part) -> float | None:
    return _mean(part.matrix("reference", "robust_loss"))


def _error(part: Part | None) -> float | None:
    return None if part is None else _mean(part.matrix("reference", "robust_wrong").astype(float))


def _mean(values: np.ndarray) -> float | None:
    """None where there is nothing, or a loss was not finite: then it was not measured."""
    mean = float(values.mean()) if values.size else math.nan
    return mean if math.isfinite(mean) else None


def _worst(rises: np.ndarray) -> float | None:
    """The largest mean over the samples; at least 0, because ν = 0 lies in the ball too."""
    if not rises.size or not np.isfinite(rises).all():
        return None
    return max(0.0, float(rises.mean(axis=1).max()))


def _ends(values: np.ndarray, seed: int = 0) -> Ends:
    """Percentiles of a bootstrap that draws rows (ν) and columns (samples) anew, both at once."""
    if not values.size or not np.isfinite(values).all():
        return None
    generator = np.random.default_rng(seed)
    rows, columns = values.shape
    of_rows = generator.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES) / rows
    of_columns = generator.multinomial(columns, np.full(columns, 1 / columns), size=RESAMPLES)
    means = np.einsum("br,rc,bc->b", of_rows, values, of_columns / columns, optimize=True)
    outside = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)
