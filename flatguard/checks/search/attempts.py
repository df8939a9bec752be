"""Attempts to fool the target on survivors: the table that the corrected accuracy comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor

from flatguard.checks.context import CONFIRM_DRAWS, CheckContext, Rows
from flatguard.checks.evidence import ProbeEvidence
from flatguard.runs.check_evidence import load_fooled, load_probes

Family = Literal[
    "repeat", "control", "loss", "temperature", "float64", "saturating", "repair", "smoothed",
    "estimated", "eot", "surrogate", "black-box", "noise", "budget", "further", "targeted",
    "recorded", "switch",
]  # fmt: skip

KEPT_IMAGES = 100
"""A probe keeps so many examples; all of them where the target is randomised."""
_PRIOR = 10

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


@dataclass(frozen=True)
class Shown:
    """Examples, and how the target decided about them.

    Attributes:
        attempt, family: as in `Attempt`.
        images: `(n, ...)`.
        wrong: the share of wrong decisions, `(n,)`.
        draws: how many decisions that is a share of.
        forwards: the sample-forwards that were spent.
    """

    attempt: str
    family: Family | str
    images: Tensor
    wrong: Tensor
    draws: int
    forwards: int


def surely(wrong: float, draws: int) -> float:
    """The share of wrong draws, nearer to one half the fewer they are: few are lucky more often."""
    return (wrong * draws + 0.5 * _PRIOR) / (draws + _PRIOR)


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
            "draws": "int64",
        }
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
        table = pd.concat(self.frames, ignore_index=True) if self.frames else empty
        return ProbeEvidence(facts or {}, {"attempts": table}, self.examples)

    def add(self, context: CheckContext, attempt: Attempt, rows: Rows) -> Rows:
        """Make an attempt on these samples, confirm the result and add it.

        Returns:
            The samples that it did not fool.
        """
        before = context.meter.forwards
        with context.seeded(f"{attempt.name} {int(rows.sample[0])}"):
            images, fooled = attempt.method(rows)
            wrong = context.confirmed(images, rows, fooled)
        draws = CONFIRM_DRAWS if context.randomised else 1
        spent = context.meter.forwards - before
        shown = Shown(attempt.name, attempt.family, images, wrong, draws, spent)
        self.put(context, rows, shown)
        return rows[wrong <= 0.5]

    def put(self, context: CheckContext, rows: Rows, shown: Shown) -> None:
        """Add what was shown to the target already."""
        fooled, wrong = shown.wrong > 0.5, shown.wrong
        self.frames.append(
            pd.DataFrame(
                {
                    "sample": rows.sample.cpu().numpy(),
                    "attempt": shown.attempt,
                    "family": shown.family,
                    "fooled": fooled.cpu().numpy(),
                    "wrong": wrong.cpu().numpy(),
                    "draws": shown.draws,
                    "forwards": shown.forwards / len(rows),
                }
            )
        )
        for index in fooled.nonzero()[:, 0].tolist():
            number, rank = int(rows.sample[index]), surely(float(wrong[index]), shown.draws)
            if rank <= self.best.get(number, 0.0):
                continue
            if number in self.examples or context.randomised or len(self.examples) < KEPT_IMAGES:
                self.examples[number] = shown.images[index].detach().cpu()
                self.best[number] = rank


def best_examples(context: CheckContext) -> dict[int, Tensor]:
    """For each sample, the example that was wrong most surely in the draws so far.

    Where the audited attack's own example, or the clean image, is wrong in more, it is that one.
    """
    best: dict[int, tuple[float, Tensor]] = {}
    survival = context.stored("determinism").tables.get("survival")
    if survival is not None:
        shares = dict(zip(survival["sample"].astype(int), survival["wrong"], strict=True))
        clean = set(survival.loc[survival["clean"].astype(bool), "sample"].astype(int))
        for rows in context.rows(np.array(sorted(shares), np.int64)):
            for index, number in enumerate(rows.sample.tolist()):
                images = rows.images if number in clean else rows.adversarial
                best[number] = (surely(shares[number], CONFIRM_DRAWS), images[index].cpu())
    for name in load_probes(context.run):
        table = context.stored(name).tables.get("attempts")
        if table is None or "draws" not in table:
            continue
        ranks = [surely(*pair) for pair in zip(table["wrong"], table["draws"], strict=True)]
        most = table.assign(rank=ranks).groupby("sample")["rank"].max().to_dict()
        for number, image in load_fooled(context.run, name).items():
            if most.get(number, 0.0) > best.get(number, (0.0, image))[0]:
                best[number] = (most[number], image)
    return {number: image for number, (_, image) in best.items()}
