"""PromptRequest: every option of an attack on the prompts of a language model, once.

As `request`, for another kind of run: the command line, `evaluate_prompts()` and the manifest
follow from the fields. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from flatguard.errors import UsageError
from flatguard.option_values import AtLeastOne, Positive, Share
from flatguard.request import TOLERANCE, Limits, Option, options

STEPS, GENERATIONS = 250, 8
"""GCG's default number of steps, and how many answers are sampled for each prompt."""


class PromptOptions(BaseModel):
    """What `flatguard evaluate` takes for a language model beside its other options."""

    prompt: Annotated[
        tuple[str, ...],
        Field(description="What a user asks a language model; may be repeated."),
        Option("Prompts", metavar="TEXT"),
    ] = ()
    target: Annotated[
        tuple[str, ...],
        Field(description="What the attack makes it answer: one for all, or one for each prompt."),
        Option("Prompts", metavar="TEXT"),
    ] = ()
    prompts: Annotated[
        Path | None,
        Field(description="A .csv with the columns prompt and target, in place of both."),
        Option("Prompts", metavar="FILE"),
    ] = None
    steps: Annotated[
        AtLeastOne | None,
        Field(description=f"Accepted suffixes for each prompt; by default {STEPS}."),
        Option("Prompts"),
    ] = None
    generations: Annotated[
        AtLeastOne | None,
        Field(
            description=f"Answers that are sampled to judge each success; by default {GENERATIONS}."
        ),
        Option("Prompts"),
    ] = None


class PromptAndTarget(BaseModel):
    """A prompt, and what the attack makes the model answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    target: str


class PromptRequest(BaseModel):
    """Which model is attacked on which prompts, and how.

    Its other fields are as those of `EvaluationRequest`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Annotated[str, Option("Model", "location")]
    attack: Annotated[str, Option("Attack")] = "gcg"
    attack_args: Annotated[dict[str, Any], Option("Attack", name="attack-arg")] = {}
    prompts: Annotated[tuple[PromptAndTarget, ...], Field(min_length=1), Option("Prompts")]
    steps: Annotated[AtLeastOne, Option("Prompts")] = STEPS
    generations: Annotated[AtLeastOne, Option("Prompts")] = GENERATIONS
    device: Annotated[str | None, Option("Computation")] = None
    threads: Annotated[AtLeastOne | None, Option("Computation")] = None
    seed: Annotated[int, Field(ge=0), Option("Computation")] = 0
    tolerance: Annotated[Share, Option("Verdict", "verdict")] = TOLERANCE
    max_forwards: Annotated[AtLeastOne | None, Option("Limits", "spending")] = None
    max_minutes: Annotated[Positive | None, Option("Limits", "spending")] = None

    @property
    def limits(self) -> Limits:
        """What the run may spend at most."""
        return Limits(max_forwards=self.max_forwards, max_minutes=self.max_minutes)

    def decisive(self) -> dict[str, Any]:
        """The fields that the evidence depends on, as JSON holds them."""
        chosen = options(PromptRequest).items()
        names = {name for name, option in chosen if option.decides in ("evidence", "location")}
        return self.model_dump(mode="json", include=names)


def paired(prompts: Sequence[str], targets: Sequence[str]) -> tuple[PromptAndTarget, ...]:
    """Each prompt with its target; one target is that of all prompts.

    Raises:
        UsageError: no prompt or no target, or neither one target nor as many as prompts.
    """
    for name, given in (("prompt", prompts), ("target", targets)):
        if not given:
            raise UsageError(f"--{name}: expected a text, got none")
    if len(targets) not in (1, len(prompts)):
        raise UsageError(
            f"--target: expected one for all prompts, or one for each of {len(prompts)}, got "
            f"{len(targets)}"
        )
    shared = targets if len(targets) > 1 else [targets[0]] * len(prompts)
    pairs = zip(prompts, shared, strict=True)
    return tuple(PromptAndTarget(prompt=prompt, target=target) for prompt, target in pairs)
