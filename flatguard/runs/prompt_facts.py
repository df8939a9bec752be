"""The contents of the JSON files of a run on prompts, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flatguard.prompt_request import PromptRequest
from flatguard.recording.prompt_recorder import AcceptedSuffix
from flatguard.runs.facts import MOST_THREADS, Number, digest

PROMPT_FORMAT = 1
"""Of a run on prompts; other formats are refused."""


class LanguageModelFacts(BaseModel):
    """What was attacked.

    Attributes:
        vocabulary, features: k and d of the head, whose weights are `(k, d)`.
        tied: whether the head's weights are the embeddings.
        log_weight_norm_squared: log ‖W‖² of the head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    weights_sha256: str
    vocabulary: Number
    features: Number
    tied: bool
    log_weight_norm_squared: float


class PromptPlan(BaseModel):
    """The tokens of one prompt around its suffix, and of its target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: tuple[Number, ...]
    after: tuple[Number, ...]
    target: Annotated[tuple[Number, ...], Field(min_length=1)]


class PromptManifest(BaseModel):
    """Everything that is known before the attack begins.

    Attributes:
        identity: SHA-256 of what decides the evidence; every step bears it.
        plans: one for each prompt of the request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = PROMPT_FORMAT
    created: str
    command: tuple[str, ...]
    identity: str = ""
    request: PromptRequest
    attack_args: dict[str, Any]
    model: LanguageModelFacts
    plans: tuple[PromptPlan, ...]
    versions: dict[str, str]
    device: dict[str, Any]

    @model_validator(mode="after")
    def _has_a_plan_for_each_prompt(self) -> PromptManifest:
        if len(self.plans) != len(self.request.prompts):
            raise ValueError("it has not one plan for each prompt")
        threads = self.device.get("threads")
        if not isinstance(self.device.get("type"), str):
            raise ValueError("its device has no type")
        if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise ValueError("its device has no such number of threads")
        return self

    def identified(self) -> PromptManifest:
        """The same with its identity."""
        content = self.model_dump(mode="json", exclude={"created", "command", "identity"})
        decisive = {**content, "request": self.request.decisive()}
        return self.model_copy(update={"identity": digest(decisive)})


class StepFacts(BaseModel):
    """One accepted suffix of one prompt.

    Attributes:
        run: the identity of its run.
        prompt: the prompt's number, from 0.
        forwards: sequences that were sent forward for it, by the attack and for its measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    prompt: Number
    forwards: Number
    accepted: AcceptedSuffix

    @model_validator(mode="after")
    def _has_a_number_for_each_token(self) -> StepFacts:
        one = self.accepted
        lengths = {len(v) for v in (one.log_kappa, one.losses, one.confidences, one.predicted)}
        if len(lengths) != 1 or not one.losses:
            raise ValueError("it has not one number for each token of the target")
        return self


class AnswerFacts(BaseModel):
    """What the model answers to one prompt, from the text: with the suffix, and without any.

    Attributes:
        run, prompt: as for `StepFacts`.
        step: whose suffix was judged: the one with the lowest loss.
        greedy: the answer of the most likely tokens.
        sampled: answers that were drawn at temperature 1.
        without_suffix: the greedy answer to the prompt alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    prompt: Number
    step: Number
    greedy: str
    sampled: tuple[str, ...]
    without_suffix: str
