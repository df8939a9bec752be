"""What a run folder says about itself, as it stands in its JSON files."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from flatguard.allowance import NO_LIMITS, Limits
from flatguard.attacks.monitor import Segment
from flatguard.runs.spec import RunSpec

FORMAT_VERSION = 2
"""2 added the clean images of a block and the names of the classes; what lacks them is read."""


class BlockPlan(BaseModel):
    """Samples `start` to `stop` of the data set, attacked together with one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    start: int
    stop: int
    seed: int


class TargetFacts(BaseModel):
    """What was attacked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    weights_sha256: str
    num_classes: int
    head: str | None
    head_scale: float | None
    head_reason: str | None
    log_weight_norm_squared: float | None
    notes: tuple[str, ...]


class DataFacts(BaseModel):
    """What it was attacked on; `classes` are their names in the labels' order, where known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: int
    sha256: str
    image_shape: tuple[int, ...]
    classes: tuple[str, ...] | None = None


class Manifest(BaseModel):
    """Everything that is known before the attack begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    created: str
    command: tuple[str, ...]
    spec: RunSpec
    limits: Limits = NO_LIMITS
    attack_args: dict[str, Any]
    target: TargetFacts
    data: DataFacts
    blocks: tuple[BlockPlan, ...]
    versions: dict[str, str]
    device: dict[str, Any]


class BlockFacts(BaseModel):
    """What one block's attack did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: BlockPlan
    calls: int
    sample_forwards: int
    sample_backwards: int
    rows_unassigned: int
    first_nonfinite: int | None
    segments: tuple[Segment, ...]
    warnings: tuple[str, ...]
    files: dict[str, str] = {}


class BlockFailure(BaseModel):
    """What one block's attack did before it raised; `budget` where the run's budget ended it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: BlockPlan
    error: str
    budget: bool = False
    calls: int
    sample_forwards: int
    sample_backwards: int
    rows_unassigned: int
    first_nonfinite: int | None
    segments: tuple[Segment, ...]
