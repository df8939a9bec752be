"""Attempts to fool the target on survivors: the table that the corrected accuracy comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.evidence import ProbeEvidence
from flatguard.runs.check_evidence import load_fooled, load_probes

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
    best: dict[int, float] = field(default_factory=dict)

    def evidence(self, facts: dict[str, object] | None = None) -> ProbeEvidence:
        """What is stored: a row for each sample and attempt."""
        columns = {
            "sample": "int64",
            "attempt": "object",
            "family": "object",
            "fooled": "bool",
            "wrong": "float64",
        }
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
        table = pd.concat(self.frames, ignore_index=True) if self.frames else empty
        return ProbeEvidence(facts or {}, {"attempts": table}, self.examples)

    def add(self, context: CheckContext, attempt: Attempt, rows: Rows) -> None:
        """Make an attempt on these samples, confirm the result and add it."""
        before = context.meter.forwards
        with context.seeded(f"{attempt.name} {int(rows.sample[0])}"):
            images, fooled = attempt.method(rows)
            wrong = context.confirmed(images, rows, fooled)
            fooled = wrong > 0.5
        self.frames.append(
            pd.DataFrame(
                {
                    "sample": rows.sample.cpu().numpy(),
                    "attempt": attempt.name,
                    "family": attempt.family,
                    "fooled": fooled.cpu().numpy(),
                    "wrong": wrong.cpu().numpy(),
                    "forwards": (context.meter.forwards - before) / len(rows),
                }
            )
        )
        for index in fooled.nonzero()[:, 0].tolist():
            number = int(rows.sample[index])
            if not self._is_better(number, float(wrong[index])):
                continue
            if number in self.examples or context.randomised or len(self.examples) < _KEPT_IMAGES:
                self.examples[number] = images[index].detach().cpu()
                self.best[number] = float(wrong[index])

    def _is_better(self, number: int, wrong: float) -> bool:
        return wrong > self.best.get(number, 0.0)


def best_examples(context: CheckContext) -> dict[int, Tensor]:
    """For each sample, the example that was wrong in the largest share of draws so far.

    Where the audited attack's own example is wrong in more of them, it is that one.
    """
    best: dict[int, tuple[float, Tensor]] = {}
    survival = context.stored("determinism").tables.get("survival")
    if survival is not None:
        shares = dict(zip(survival["sample"].astype(int), survival["wrong"], strict=True))
        clean = set(survival.loc[survival["clean"].astype(bool), "sample"].astype(int))
        for rows in context.rows(np.array(sorted(shares), np.int64)):
            for index, number in enumerate(rows.sample.tolist()):
                images = rows.images if number in clean else rows.adversarial
                best[number] = (shares[number], images[index].cpu())
    for name in load_probes(context.run):
        table = context.stored(name).tables.get("attempts")
        if table is None or "wrong" not in table:
            continue
        most = table.groupby("sample", as_index=False)["wrong"].max()
        shares = dict(zip(most["sample"].astype(int), most["wrong"], strict=True))
        for number, image in load_fooled(context.run, name).items():
            if shares.get(number, 0.0) > best.get(number, (0.0, image))[0]:
                best[number] = (shares[number], image)
    return {number: image for number, (_, image) in best.items()}
