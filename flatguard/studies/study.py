"""What a study is: a figure, a table or a statement of a paper that a model can be held to.

A new one is a file with a `Study`, and a line in its paper's `__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flatguard.data.dataset import Batch, check_labels
from flatguard.data.dataset import blocks as blocks_of
from flatguard.data.hashing import DataHash
from flatguard.errors import UsageError
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.budget import Norm
from flatguard.request import derive_seed
from flatguard.runs.run import Run
from flatguard.studies.claim import Claim
from flatguard.targets.head import Head
from flatguard.targets.target import Target

Paper = Literal["walter2026", "stutz2021"]
PAPERS: dict[Paper, str] = {
    "walter2026": 'N. P. Walter et al., "When Flatness Does (Not) Guarantee Adversarial '
    'Robustness", ICLR 2026',
    "stutz2021": 'D. Stutz et al., "Relating Adversarially Robust Generalization to Flat Minima", '
    "ICCV 2021",
}

Status = Literal["runs-here", "needs-checkpoint", "planned", "illustration"]
"""`runs-here`: `make reproduce` has what it needs; `needs-checkpoint`: give it one with --model;
`planned`: no code yet; `illustration`: the figure shows no measurement."""

Models = Literal["one", "many", "none", "runs"]
"""`runs`: the runs of `flatguard geometry robust-flatness`, or models that are measured first."""


@dataclass(frozen=True)
class Protocol:
    """The attack that the paper runs.

    Attributes:
        attack: as on the command line.
        norm, eps: its budget.
        args: its arguments.
    """

    attack: str = "torchattacks:PGD"
    norm: Norm = "Linf"
    eps: str = "8/255"
    args: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.attack} within {self.norm} {self.eps}" + (f" ({given})" if given else "")


@dataclass(frozen=True)
class Subject:
    """What a study is run on: models with their data, device, seed and attack, all loaded.

    Attributes:
        jobs: one for each model; each holds the study's protocol as its attack. None where the
            study takes no model.
        count: how many samples, the first ones.
        progress: receives progress updates.
        runs: finished ones, in place of models.
    """

    jobs: tuple[EvaluationContext, ...]
    count: int
    progress: ProgressReporter
    runs: tuple[Run, ...] = ()

    @property
    def context(self) -> EvaluationContext:
        """The first model's."""
        return self.jobs[0]

    @property
    def target(self) -> Target:
        """The first model."""
        return self.context.target

    @property
    def model(self) -> nn.Module:
        """The first model's module, in eval mode on `device`."""
        return self.context.target.model

    @property
    def device(self) -> torch.device:
        """Where models and batches are."""
        return self.context.device

    def head(self) -> Head:
        """The first model's proven head.

        Raises:
            UsageError: it has none, so that κ is not defined.
        """
        if self.target.head is None:
            raise UsageError(
                f"this study needs the model's final linear layer: {self.target.head_reason}"
            )
        return self.target.head

    def seed(self, part: str, block: int = 0) -> int:
        """The seed of one part of the study on one block."""
        return derive_seed(self.context.request.seed, block, part)

    def blocks(self) -> Iterator[tuple[int, Batch]]:
        """The samples on `device`, each block with the number of its first."""
        context = self.context
        for start, batch in blocks_of(context.dataset, self.count, context.block_size):
            check_labels(batch, context.num_classes, context.dataset.name, start)
            yield start, Batch(batch.images.to(self.device), batch.labels.to(self.device))

    def data_sha256(self) -> str:
        """The hash of the samples that are shown, as a run's manifest has it."""
        hashes = DataHash()
        for _, batch in blocks_of(self.context.dataset, self.count, self.context.block_size):
            hashes.update(batch)
        return hashes.hexdigest()

    def batch(self, count: int | None = None) -> Batch:
        """The first `count` samples at once, for studies that need few."""
        batch = self.context.dataset.block(0, min(count or self.count, self.count))
        check_labels(batch, self.context.num_classes, self.context.dataset.name)
        images: Tensor = batch.images.to(self.device)
        return Batch(images, batch.labels.to(self.device))


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Attributes:
        claims: each with its verdict.
        figures: the numbers behind the paper's panels, by name; JSON without NaN.
        notes: sentences on the method that all claims share.
    """

    claims: tuple[Claim, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A figure, a table or a statement of a paper.

    Attributes:
        name: the paper's own: `walter-fig13`.
        paper: which one.
        reference: where in it: `Figure 13`.
        claim: what it says, in one sentence.
        number: its number as printed, or its words.
        status: whether it can be run here.
        why: what is missing, where something is.
        run: from a subject to claims; None exactly where there is nothing to run.
        protocol: the paper's attack.
        samples: how many are taken by default.
        models: how many models it compares; a calculation takes none.
    """

    name: str
    paper: Paper
    reference: str
    claim: str
    number: str
    status: Status
    why: str = ""
    run: Callable[[Subject], Outcome] | None = None
    protocol: Protocol = field(default_factory=Protocol)
    samples: int = 200
    models: Models = "one"
