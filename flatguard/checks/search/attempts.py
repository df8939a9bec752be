"""Attempts to fool the target on survivors: the table that the corrected accuracy comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.evidence import ProbeEvidence

Family = Literal[
    "repeat", "control", "loss", "temperature", "float64", "saturating", "repair", "smoothed",
    "estimated", "eot", "surrogate", "black-box", "noise", "budget", "recorded",
]  # fmt: skip

_KEPT_IMAGES = 100

Method = Callable[[Rows], "tuple[Tensor, Tensor]"]
"""Returns admissible images, and which of them fool the target."""


@dataclass(frozen=True)
class Attempt:
    """One way to fool the target.

    Attributes:
        name: as it is shown.
        family: the kind of evidence that it gives; one of `Family` or a new one.
        method: searches the images.
    """

    name: str
    family: Family | str
    method: Method


@dataclass
class AttemptTable:
    """Collects the results of attempts."""

    frames: list[pd.DataFrame] = field(default_factory=list)
    examples: dict[int, Tensor] = field(default_factory=dict)

    def evidence(self, facts: dict[str, object] | None = None) -> ProbeEvidence:
        """What is stored: a row for each sample and attempt."""
        columns = {"sample": "int64", "attempt": "object", "family": "object", "fooled": "bool"}
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
        table = pd.concat(self.frames, ignore_index=True) if self.frames else empty
        return ProbeEvidence(facts or {}, {"attempts": table}, self.examples)

    def add(self, context: CheckContext, attempt: Attempt, rows: Rows) -> None:
        """Make an attempt on these samples, confirm the result and add it."""
        before = context.meter.forwards
        with context.seeded(f"{attempt.name} {int(rows.sample[0])}"):
            images, fooled = attempt.method(rows)
            fooled = context.confirmed(images, rows, fooled)
        self.frames.append(
            pd.DataFrame(
                {
                    "sample": rows.sample.cpu().numpy(),
                    "attempt": attempt.name,
                    "family": attempt.family,
                    "fooled": fooled.cpu().numpy(),
                    "forwards": (context.meter.forwards - before) / len(rows),
                }
            )
        )
        for index in fooled.nonzero()[:, 0].tolist():
            number = int(rows.sample[index])
            if number not in self.examples and len(self.examples) < _KEPT_IMAGES:
                self.examples[number] = images[index].detach().cpu()
