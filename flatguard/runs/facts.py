"""The contents of a run folder's JSON files, as pydantic models."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flatguard.attacks.monitor import Segment
from flatguard.request import EvaluationRequest

FORMAT_VERSION = 4
"""Of the run folder; other formats are refused."""

FROM_PYTHON, DATA_FROM_PYTHON = "a module from Python", "images from Python"
"""The source of a model and the name of a data set that have no name of their own."""

MOST_THREADS = 4096
_ROUNDING = 2e-3
"""Logits of one model on two devices differ by less than this share of their size."""

Number = Annotated[int, Field(ge=0, lt=1 << 53)]
"""Counted: no larger than a float holds."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
"""A file in its own folder: a path could lead out of it."""


class BlockPlan(BaseModel):
    """Samples `start` to `stop` of the data set, attacked together with one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Number
    start: Number
    stop: Number
    seed: Number


class TargetFacts(BaseModel):
    """What was attacked.

    Attributes:
        not_hashed: where the model holds tensors that `weights_sha256` does not cover.
        abstains: whether its last class is an abstention.
        templates: of the texts of a zero-shot model.
        class_texts: what stands in them for each class.
        first_answers: its logits for the first images, `(n, k)`; None if they are not repeatable.
        preprocessing: of the model's own benchmark; None without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    weights_sha256: str
    num_classes: Annotated[int, Field(ge=2, lt=1 << 31)]
    head: str | None
    head_scale: float | None
    head_reason: str | None
    log_weight_norm_squared: float | None
    notes: tuple[str, ...]
    not_hashed: tuple[str, ...] = ()
    abstains: bool = False
    templates: tuple[str, ...] = ()
    class_texts: tuple[str, ...] = ()
    first_answers: tuple[tuple[float, ...], ...] | None = None
    preprocessing: str | None = None

    def answers_like(self, other: tuple[tuple[float, ...], ...] | None) -> bool:
        """Whether these first answers are the same, up to rounding on another device."""
        return same_answers(self.first_answers, other)


def same_answers(
    one: tuple[tuple[float, ...], ...] | None, two: tuple[tuple[float, ...], ...] | None
) -> bool:
    """Whether logits are the same, up to rounding on another device; None is not repeatable."""
    if one is None or two is None:
        return one is two
    return len(one) == len(two) and all(map(_is_like, one, two))


def _is_like(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    if len(one) != len(two):
        return False
    middle = sum(one) / len(one)
    size = max(abs(value - middle) for value in one) or 1.0
    return all(abs(a - b) <= _ROUNDING * size for a, b in zip(one, two, strict=True))


class DataFacts(BaseModel):
    """What it was attacked on.

    Attributes:
        name: as it is shown.
        size: of the whole data set.
        sha256: of the images and labels that are evaluated, as `DataHash` has it.
        image_shape: of one image.
        classes: their names in the labels' order, where known.
        blocks: the same hash for each block alone, so that a worker reads no more than its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: Number
    sha256: str
    image_shape: tuple[Number, ...]
    classes: tuple[str, ...] | None
    blocks: tuple[str, ...]


class Manifest(BaseModel):
    """Everything that is known before the attack begins.

    Attributes:
        identity: SHA-256 of what decides the evidence; see `decisive`. Every block and probe bears
            it, and runs that share it are shards of one.
        request: every option, resolved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    created: str
    command: tuple[str, ...]
    identity: str = ""
    request: EvaluationRequest
    attack_args: dict[str, Any]
    target: TargetFacts
    data: DataFacts
    blocks: tuple[BlockPlan, ...]
    versions: dict[str, str]
    device: dict[str, Any]

    @model_validator(mode="after")
    def _resolved(self) -> Manifest:
        """What every reader relies on: a budget, and blocks that follow on each other."""
        if self.request.norm is None:
            raise ValueError("its request has no norm")
        self.request.budget()
        if self.request.max_failures is None:
            raise ValueError("its request has no number of failures")
        if not isinstance(self.device.get("type"), str):
            raise ValueError("its device has no type")
        threads = self.device.get("threads", 1)
        if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise ValueError("its device has no such number of threads")
        start = 0
        for index, plan in enumerate(self.blocks):
            if (plan.index, plan.start) != (index, start) or plan.stop <= start:
                raise ValueError(f"block {index} does not follow on the one before it")
            start = plan.stop
        if not self.blocks:
            raise ValueError("it has no blocks")
        if len(self.data.blocks) != len(self.blocks):
            raise ValueError("its data has not one hash for each block")
        return self

    @property
    def from_python(self) -> tuple[str, ...]:
        """`model` and `data`, as far as they came from Python: no command can load them."""
        found = {
            "model": self.target.source == FROM_PYTHON,
            "data": self.data.name == DATA_FROM_PYTHON,
        }
        return tuple(name for name, came in found.items() if came)

    def identified(self) -> Manifest:
        """The same with its identity."""
        return self.model_copy(update={"identity": digest(self.decisive())})

    def decisive(self) -> dict[str, Any]:
        """What the bytes of the blocks depend on, as JSON holds it."""
        content = self.model_dump(mode="json", exclude={"created", "command", "identity"})
        # Logits differ from device to device in their last digits; shards compare them in `merge`.
        del content["target"]["first_answers"]
        return {**content, "request": self.request.that_decide("evidence", "location")}


def digest(content: Any) -> str:
    """SHA-256 of plain JSON, its keys sorted."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class SampleFailure(BaseModel):
    """A sample that the model could not be measured on, and what it raised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: Number
    error: str


class _BlockCounts(BaseModel):
    """The model calls of one block, and the SHA-256 of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: BlockPlan
    calls: Number
    sample_forwards: Number
    sample_backwards: Number
    rows_unassigned: Number
    first_nonfinite: Number | None
    segments: tuple[Segment, ...]
    files: dict[FileName, str] = {}


class BlockFacts(_BlockCounts):
    """What the attack on a block did; `run` is the identity of the block's run."""

    warnings: tuple[str, ...]
    failures: tuple[SampleFailure, ...] = ()
    run: str = ""


class BlockFailure(_BlockCounts):
    """What the attack on a block did before it raised; `budget`: the run's budget was spent."""

    error: str
    budget: bool = False


class Timing(BaseModel):
    """The seconds of each stage of a block or a check; only here two equal runs differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
