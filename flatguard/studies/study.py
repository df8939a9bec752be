"""A study: a figure, a table or a statement of a paper that can be tested on a model.

A new study is an entry in its paper's `studies.yaml` and the function that the entry names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from flatguard.data.dataset import Batch, blocks, check_labels
from flatguard.errors import UsageError
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.budget import Norm
from flatguard.request import derive_seed
from flatguard.runs.prompt_run import PromptRun
from flatguard.runs.run import Run
from flatguard.studies.claim import Claim
from flatguard.targets.head import FinalMap

Status = Literal["runs-here", "needs-checkpoint", "planned", "illustration"]
"""`runs-here`: `make reproduce` has what it needs; `needs-checkpoint`: give it one with --model;
`planned`: no code yet; `illustration`: the figure shows no measurement."""

Models = Literal["one", "many", "none", "runs", "prompts"]
"""`runs`: the runs of `flatguard geometry robust-flatness`, or models that are measured first;
`prompts`: a run on prompts, or a language model that is attacked first."""


class Protocol(BaseModel):
    """The attack that the paper runs.

    Attributes:
        attack: as on the command line.
        norm, eps: its budget.
        args: its arguments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str = "torchattacks:PGD"
    norm: Norm = "Linf"
    eps: str = "8/255"
    args: dict[str, Any] = {}

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.attack} within {self.norm} {self.eps}" + (f" ({given})" if given else "")


class PromptProtocol(BaseModel):
    """The attack on prompts of a study.

    Attributes:
        attack: as on the command line.
        args: its arguments.
        steps: accepted suffixes for each prompt.
        file: the prompts and targets, in this package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str
    args: dict[str, Any]
    steps: int
    file: str


class Study(BaseModel):
    """A figure, a table or a statement of a paper; an entry of a `studies.yaml`.

    Attributes:
        name: the paper's own: `walter-fig13`.
        paper: which one.
        reference: where in it: `Figure 13`.
        claim: what it says, in one sentence.
        number: its number as printed, or its words.
        status: whether it can be run here.
        why: what is missing, where something is missing.
        function: what computes it, in this package: `walter.valley:valley_of`.
        protocol: the paper's attack.
        prompts: the attack in place of `protocol`, for a study of language models.
        samples: how many samples by default.
        models: how many models it takes; a calculation takes none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    paper: str
    reference: str
    claim: str
    number: str
    status: Status = "runs-here"
    why: str = ""
    function: str = ""
    protocol: Protocol = Protocol()
    prompts: PromptProtocol | None = None
    samples: int = 200
    models: Models = "one"

    @property
    def run(self) -> Callable[[Subject], Outcome] | None:
        """The function from a subject to claims; None where there is nothing to run."""
        if not self.function:
            return None
        found: Callable[[Subject], Outcome] = resolve_name(f"flatguard.studies.{self.function}")
        return found


@dataclass(frozen=True)
class Subject:
    """What a study is run on: models with their data, device, seed and attack, all loaded.

    Attributes:
        study: the study.
        contexts: one for each model; each holds the study's protocol as its attack, and the
            number of samples. Empty where the study takes no model.
        progress: receives progress updates.
        runs: finished runs, in place of models.
        prompt_run: a run on prompts, in place of models.
    """

    study: Study
    contexts: tuple[EvaluationContext, ...]
    progress: ProgressReporter
    runs: tuple[Run, ...] = ()
    prompt_run: PromptRun | None = None

    @property
    def context(self) -> EvaluationContext:
        """The first model's."""
        return self.contexts[0]

    @property
    def count(self) -> int:
        """How many samples, from the first on."""
        return self.context.count

    @property
    def model(self) -> nn.Module:
        """The first model's module, in eval mode on its device."""
        return self.context.target.model

    def head(self) -> FinalMap:
        """The first model's proven head.

        Raises:
            UsageError: it has none, so that κ is not defined.
        """
        target = self.context.target
        if target.head is None:
            raise UsageError(
                f"this study needs the model's final linear layer: {target.head_reason}"
            )
        return target.head

    def seed(self, part: str, block: int = 0) -> int:
        """The seed of one part of the study on one block."""
        return derive_seed(self.context.request.seed, block, part)

    def blocks(self) -> Iterator[tuple[int, Batch]]:
        """The samples on the model's device, each block with the number of its first sample."""
        context = self.context
        for start, batch in blocks(context.dataset, self.count, context.block_size):
            yield start, self._on_device(batch, start)

    def batch(self) -> Batch:
        """All samples at once, for studies that need few."""
        return self._on_device(self.context.dataset.block(0, self.count), 0)

    def _on_device(self, batch: Batch, start: int) -> Batch:
        context = self.context
        check_labels(batch, context.num_classes, context.dataset, start)
        images: Tensor = batch.images.to(context.device)
        return Batch(images, batch.labels.to(context.device))


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Attributes:
        claims: each with its verdict.
        figures: the numbers behind the paper's panels, by name; JSON without NaN.
        notes: sentences on the method of all claims.
    """

    claims: tuple[Claim, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
