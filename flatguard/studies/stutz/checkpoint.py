"""The numbers of one checkpoint from its run folder: robust loss, its flatness, robust error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from flatguard.checks.statistics import interval
from flatguard.checks.weight_space.summary import (
    Ends,
    WeightLosses,
    ends,
    mean,
    weight_losses,
    worst,
)
from flatguard.errors import RunFolderError
from flatguard.runs.run import Run

_EPOCH = re.compile(r"(\d+)$")


class Checkpoint(BaseModel):
    """A checkpoint's row of Table 1, and what Figures 1, 2, 5, 6 and 7 plot.

    What was not measured is None. Intervals are 95%.

    Attributes:
        folder: the name of its run's.
        run: the training run: the name of the checkpoint's folder.
        epoch: the number that its name ends with.
        weights_sha256: of the model.
        samples: how many test samples.
        attack: against which the robust error is measured.
        rerr: robust error against that attack; too low if gradients are masked.
        rloss: mean robust loss under `protocol`; also over the samples whose clean images are
            classified correctly, and over the others.
        flatness: average case in the robust loss, Eq. (1); `_clean` in the clean loss, `worst` in
            the worst case.
        training_rloss, training_rerr, training_flatness: on training samples; the error is against
            PGD.
        gap: rloss - training_rloss, robust generalisation.
        held_out_rerr: against PGD, on samples that serve only to choose an epoch.
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


def checkpoint_of(run: Run) -> Checkpoint:
    """A checkpoint's numbers from its run folder.

    Raises:
        RunFolderError: the run is incomplete, or its flatness was not measured.
    """
    parts = weight_losses(run)
    if not run.complete or "test" not in parts:
        raise RunFolderError(
            f"{run.path} has no weight flatness; flatguard geometry robust-flatness measures it"
        )
    samples, request = run.samples, run.request
    n, fooled = len(samples), int((~samples["robust"]).sum())
    model, ascent = Path(request.model), parts["test"].facts.facts["ascent"]
    epoch = _EPOCH.search(model.stem)
    return Checkpoint(
        folder=run.path.name,
        run=model.parent.name or model.stem,
        epoch=None if epoch is None else int(epoch[1]),
        weights_sha256=run.manifest.target.weights_sha256,
        samples=n,
        attack=request.attack,
        protocol=f"PGD-{ascent['steps']} with {ascent['restarts']} restarts",
        clean_error=1.0 - float(samples["clean_correct"].mean()),
        rerr=fooled / n,
        rerr_interval=interval(fooled, n),
        **_of_test(parts["test"]),
        **_of_training(parts.get("training"), parts["test"]),
        held_out_rerr=_error(parts.get("held-out")),
    )


def _of_test(part: WeightLosses) -> dict[str, Any]:
    loss = part.matrix("reference", "robust_loss")[0]
    wrong = part.matrix("reference", "clean_wrong")[0].astype(bool)
    rises = part.rises("average", "robust_loss")
    return {
        "rloss": mean(loss),
        "rloss_interval": ends(loss[None, :]),
        "rloss_correct": mean(loss[~wrong]),
        "rloss_incorrect": mean(loss[wrong]),
        "flatness": mean(rises),
        "flatness_interval": ends(rises),
        "flatness_clean": mean(part.rises("average", "clean_loss")),
        "worst": worst(part.rises("worst-robust", "robust_loss")),
        "worst_clean": worst(part.rises("worst-clean", "clean_loss")),
    }


def _of_training(part: WeightLosses | None, test: WeightLosses) -> dict[str, Any]:
    if part is None:
        return {}
    there, here = _reference(part), _reference(test)
    return {
        "training_rloss": there,
        "training_rerr": _error(part),
        "training_flatness": mean(part.rises("average", "robust_loss")),
        "gap": None if here is None or there is None else here - there,
    }


def _reference(part: WeightLosses) -> float | None:
    return mean(part.matrix("reference", "robust_loss"))


def _error(part: WeightLosses | None) -> float | None:
    return None if part is None else mean(part.matrix("reference", "robust_wrong").astype(float))
