"""What every probe works with: the target, the samples that it was right about, and the price."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from flatguard.environment.randomness import seeded
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import distance
from flatguard.request import derive_seed
from flatguard.runs.facts import NO_LIMITS
from flatguard.runs.run import Run

VERIFY_DRAWS, CONFIRM_DRAWS = 9, 21
"""A randomised target is fooled where most of so many fresh passes are wrong. A search looks at
many images and would keep a lucky one, so what it found is confirmed by more passes of its own."""

EOT_DRAWS = 8
"""Gradients of a randomised target are averaged over so many draws."""

TARGET_GAP = 2.0
"""Logits divided by a sample's temperature have this gap between its class and the next."""


@dataclass(frozen=True)
class Rows:
    """Some samples of one block, on the device.

    Attributes:
        sample: `(n,)` int64, their numbers in the data set.
        images: `(n, ...)`, clean.
        labels: `(n,)` int64.
        temperature: `(n,)`, the measured gap of the clean logits over `TARGET_GAP`.
        adversarial: `(n, ...)`, what the audited attack returned.
    """

    sample: Tensor
    images: Tensor
    labels: Tensor
    temperature: Tensor
    adversarial: Tensor

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows(
            self.sample[index], self.images[index], self.labels[index],
            self.temperature[index], self.adversarial[index],
        )  # fmt: skip

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(
            self.sample.to(device), self.images.to(device), self.labels.to(device),
            self.temperature.to(device), self.adversarial.to(device),
        )  # fmt: skip


@dataclass
class Meter:
    """Rows that went forward through the target, its twins and its surrogates.

    Attributes:
        forwards: so many, so far.
        compute_budget: what they are paid from.
    """

    forwards: int = 0
    compute_budget: ComputeBudget = field(default_factory=lambda: ComputeBudget(NO_LIMITS))

    def add(self, rows: int) -> None:
        """So many rows go forward.

        Raises:
            BudgetSpent: the run may not spend that much.
        """
        self.compute_budget.spend(rows)
        self.forwards += rows


@dataclass(frozen=True)
class Found:
    """What a probe saw.

    Attributes:
        facts: what the whole probe is about; numbers and words.
        tables: rows for each sample; every table has a column `sample`.
        fooled: verified adversarial examples by sample number, for whoever wants to look.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    fooled: dict[int, Tensor] = field(default_factory=dict)


class Lab:
    """A finished run with its target loaded again.

    Args:
        context: the resolved request, with everything loaded.
        run: the run that is audited.
        progress: receives progress updates.
        compute_budget: what may be spent; None is no limit.

    Attributes:
        at_once: so many samples go forward together at most; a block, where the memory holds it.
    """

    def __init__(
        self,
        context: EvaluationContext,
        run: Run,
        progress: ProgressReporter,
        compute_budget: ComputeBudget | None = None,
    ):
        self.context, self.run, self.progress = context, run, progress
        self.target = context.target
        self.model: nn.Module = context.target.model
        self.device = context.device
        self.budget: Budget = context.attack.budget
        self.samples = run.samples.set_index("sample", drop=False)
        self.meter = Meter(compute_budget=compute_budget or ComputeBudget(NO_LIMITS))
        self.randomised = False
        self.at_once = max(plan.stop - plan.start for plan in run.manifest.blocks)
        kept = self.samples
        positive = kept.loc[kept["clean_correct"], "clean_margin"].astype("float64")
        self._floor = max(float(positive.median()) * 0.01, 1e-30) if len(positive) else 1.0

    @property
    def eps(self) -> float:
        """The radius; probes do not run where there is none."""
        if self.budget.eps is None:
            raise ValueError("this run has no budget")
        return self.budget.eps

    @property
    def draws(self) -> int:
        """Forward passes that gradients and mean margins are averaged over."""
        return EOT_DRAWS if self.randomised else 1

    @property
    def survivors(self) -> np.ndarray:
        """The samples that the audited attack left right, by number."""
        numbers: np.ndarray = self.samples.loc[self.samples["robust"], "sample"].to_numpy()
        return numbers

    def seed(self, part: str, block: int = 0) -> int:
        """A probe's own seed, from the run's."""
        return derive_seed(self.context.request.seed, block, f"probe {part}")

    def rows(self, numbers: np.ndarray, size: int | None = None) -> Iterator[Rows]:
        """These samples, at most `size` or `at_once` of one block at a time."""
        wanted = np.sort(np.asarray(numbers))
        for plan in self.run.manifest.blocks:
            here = wanted[(wanted >= plan.start) & (wanted < plan.stop)]
            if not len(here):
                continue
            batch = self.context.dataset.block(plan.start, plan.stop)
            index = torch.from_numpy(here - plan.start)
            table = self.samples.loc[here]
            gap = table["clean_margin"].to_numpy().astype("float64").clip(min=self._floor)
            rows = Rows(
                torch.from_numpy(here),
                batch.images[index],
                batch.labels[index],
                torch.from_numpy(gap / TARGET_GAP),
                self.run.adversarial(plan.index)[index],
            )
            step = min(size or self.at_once, self.at_once)
            for begin in range(0, len(rows), step):
                yield rows[begin : begin + step].to(self.device)

    def logits(self, images: Tensor) -> Tensor:
        """One counted forward pass of the target, without gradient; no pass for no images."""
        if not len(images):
            return torch.zeros(0, self.context.num_classes, device=images.device)
        self.meter.add(len(images))
        with torch.no_grad():
            logits: Tensor = self.model(images)
        return logits

    def confirmed(self, images: Tensor, rows: Rows, fell: Tensor) -> Tensor:
        """What is left of `fell` after fresh passes; all of it where the target is not random."""
        if not self.randomised or not bool(fell.any()):
            return fell
        sure = fell.clone()
        wrong = self.wrong(images[fell], rows[fell].labels, CONFIRM_DRAWS)
        sure[fell] = wrong > 0.5
        return sure

    def wrong(self, images: Tensor, labels: Tensor, draws: int = VERIFY_DRAWS) -> Tensor:
        """The share of fresh forward passes that classify each image wrong, `(n,)`.

        A NaN or infinite logit is no verified mistake.
        """
        shares = []
        for _ in range(draws if self.randomised else 1):
            logits = self.logits(images)
            shares.append((logits.argmax(dim=1) != labels) & logits.isfinite().all(dim=1))
        return torch.stack(shares).double().mean(dim=0)

    def fooled(self, images: Tensor, rows: Rows, eps: float | None = None) -> Tensor:
        """Which images are admissible and, in fresh passes of the target itself, mostly wrong."""
        budget = self.budget if eps is None else Budget(self.budget.norm, eps)
        flat = images.flatten(1)
        inside = ((flat >= 0) & (flat <= 1)).all(dim=1)
        inside &= budget.contains(distance(images, rows.images, budget.norm))
        return inside & (self.wrong(images, rows.labels) > 0.5)

    @contextmanager
    def seeded(self, part: str) -> Iterator[None]:
        """Run a part of a probe with its own seed; all generators are put back."""
        with seeded(self.seed(part), self.device):
            yield

    def said_done(self, samples: int) -> None:
        """That many samples of the present probe are done."""
        self.progress.advanced(samples)

    def spread(self, numbers: np.ndarray, count: int) -> np.ndarray:
        """At most `count` of these numbers, evenly over all of them."""
        if len(numbers) <= count:
            return numbers
        chosen: np.ndarray = numbers[np.linspace(0, len(numbers) - 1, count).round().astype(int)]
        return chosen
