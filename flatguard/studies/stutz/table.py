"""Checkpoints side by side: the rows of Table 1, and the epochs of each training run."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from pydantic import BaseModel, ConfigDict

from flatguard.studies.stutz.checkpoint import Checkpoint


class Stopped(BaseModel):
    """Where early stopping ends a training run.

    Attributes:
        epoch: with the lowest robust error on the held-out samples; the first of equals.
        rerr: the robust error of that epoch on the test samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    rerr: float


class Row(BaseModel):
    """One training run: its last checkpoint, and the one that early stopping keeps.

    Attributes:
        last: the checkpoint with the highest number.
        epochs: how many checkpoints of the run were measured.
        stopped: None unless several epochs were measured on held-out samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    last: Checkpoint
    epochs: int
    stopped: Stopped | None = None


def by_run(checkpoints: Sequence[Checkpoint]) -> dict[str, list[Checkpoint]]:
    """The checkpoints of each training run, in the order of their epochs."""
    found: dict[str, list[Checkpoint]] = {}
    for checkpoint in sorted(checkpoints, key=lambda c: (c.run, c.epoch or 0)):
        found.setdefault(checkpoint.run, []).append(checkpoint)
    return found


def table(checkpoints: Sequence[Checkpoint]) -> list[Row]:
    """A row for each training run, sorted by robust error as in Table 1."""
    rows = [
        Row(last=epochs[-1], epochs=len(epochs), stopped=_stopped(epochs))
        for epochs in by_run(checkpoints).values()
    ]
    return sorted(rows, key=lambda row: row.last.rerr)


def chosen(epochs: Sequence[Checkpoint]) -> int | None:
    """The place of the epoch with the lowest held-out robust error, the first of equals.

    None unless at least two epochs of the run were measured on held-out samples.
    """
    known = [
        (checkpoint.held_out_rerr, place)
        for place, checkpoint in enumerate(epochs)
        if checkpoint.held_out_rerr is not None
    ]
    return min(known)[1] if len(known) > 1 else None


def _stopped(epochs: Sequence[Checkpoint]) -> Stopped | None:
    place = chosen(epochs)
    if place is None:
        return None
    return Stopped(epoch=epochs[place].epoch or 0, rerr=epochs[place].rerr)


def variant_of(run: str) -> str:
    """The variant that a training run repeats: its name without the seed, as in `awp-0.01-s3`."""
    return re.sub(r"[-_]s(eed)?[-_]?\d+$", "", run)


def method_of(run: str) -> str:
    """The method of a run's variant: its name without the strength, as in `awp-0.01`."""
    return re.sub(r"[-_]\d[\d.e-]*$", "", variant_of(run))


def frame(checkpoints: Sequence[Checkpoint]) -> pd.DataFrame:
    """A row for each checkpoint, for the statistics; what was not measured is NaN."""
    columns = list(Checkpoint.model_fields)
    rows = [[getattr(checkpoint, name) for name in columns] for checkpoint in checkpoints]
    found = pd.DataFrame(rows, columns=columns)
    numbers = [c for c in columns if Checkpoint.model_fields[c].annotation in (float, float | None)]
    typed: pd.DataFrame = found.astype(dict.fromkeys(numbers, "float64"))
    return typed


def last_epochs(checkpoints: Sequence[Checkpoint]) -> pd.DataFrame:
    """Each training run's last checkpoint."""
    return frame([epochs[-1] for epochs in by_run(checkpoints).values()])
