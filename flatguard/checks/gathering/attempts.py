"""Attempts on the samples that survived: the one table that the corrected accuracy comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
from torch import Tensor

from flatguard.checks.gathering.lab import Found, Lab, Rows

Family = Literal[
    "repeat", "control", "loss", "temperature", "float64", "saturating", "repair", "smoothed",
    "estimated", "eot", "surrogate", "black-box", "noise", "budget",
]  # fmt: skip

KEPT_IMAGES = 100

Try = Callable[[Rows], "tuple[Tensor, Tensor]"]


@dataclass(frozen=True)
class Attempt:
    """One way to fool the target.

    Attributes:
        name: as it is shown.
        family: what kind of evidence it is.
        run: gives admissible images and whether they fool the target, for some samples.
    """

    name: str
    family: Family
    run: Try


@dataclass
class Log:
    """Attempts as they are made."""

    frames: list[pd.DataFrame] = field(default_factory=list)
    fooled: dict[int, Tensor] = field(default_factory=dict)

    def found(self, facts: dict[str, object] | None = None) -> Found:
        """What is stored: a row for each sample and attempt."""
        columns = {"sample": "int64", "attempt": "object", "family": "object", "fell": "bool"}
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
        table = pd.concat(self.frames, ignore_index=True) if self.frames else empty
        return Found(facts or {}, {"attempts": table}, self.fooled)

    @property
    def fell(self) -> set[int]:
        """The samples that fell to any of them."""
        return {
            int(number) for frame in self.frames for number in frame.loc[frame["fell"], "sample"]
        }


def make(lab: Lab, log: Log, attempt: Attempt, rows: Rows) -> None:
    """Try these samples, and note what came of it."""
    before = lab.meter.forwards
    with lab.seeded(f"{attempt.name} {int(rows.sample[0])}"):
        images, fell = attempt.run(rows)
        fell = lab.confirmed(images, rows, fell)
    log.frames.append(
        pd.DataFrame(
            {
                "sample": rows.sample.cpu().numpy(),
                "attempt": attempt.name,
                "family": attempt.family,
                "fell": fell.cpu().numpy(),
                "forwards": (lab.meter.forwards - before) / len(rows),
            }
        )
    )
    for index in fell.nonzero()[:, 0].tolist():
        number = int(rows.sample[index])
        if number not in log.fooled and len(log.fooled) < KEPT_IMAGES:
            log.fooled[number] = images[index].detach().cpu()
