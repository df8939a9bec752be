"""What a run folder says about itself, as it stands in its JSON files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from flatguard.allowance import NO_LIMITS, Limits
from flatguard.attacks.monitor import Segment
from flatguard.runs.spec import RunSpec

FORMAT_VERSION = 3
"""2 added the clean images of a block and the names of the classes; 3 seals and the names of blocks
by their content. What lacks them is read."""


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
    size: int
    sha256: str
    image_shape: tuple[int, ...]
    classes: tuple[str, ...] | None = None
    blocks: tuple[str, ...] = ()


class Manifest(BaseModel):
    """Everything that is known before the attack begins.

    Attributes:
        identity: SHA-256 of what decides the evidence: all but `PASSING`. Every block and probe
            bears it, and runs that share it are shards of one.
        checks: what is spent on the verdict, with `surrogates` and `tolerance`.
        max_failures: samples on which the model may fail before the run ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    created: str
    command: tuple[str, ...]
    identity: str = ""
    spec: RunSpec
    checks: str = "none"
    surrogates: tuple[str, ...] = ()
    tolerance: float = 0.05
    limits: Limits = NO_LIMITS
    max_failures: int = 0
    attack_args: dict[str, Any]
    target: TargetFacts
    data: DataFacts
    blocks: tuple[BlockPlan, ...]
    versions: dict[str, str]
    device: dict[str, Any]

    def identified(self) -> Manifest:
        """The same with its identity."""
        decisive = self.model_dump(mode="json", exclude=PASSING)
        return self.model_copy(update={"identity": digest(decisive)})


PASSING = {
    "created", "command", "identity", "checks", "surrogates", "tolerance", "limits", "max_failures",
}  # fmt: skip
"""Fields of a manifest that no block's bytes depend on."""


def digest(content: Any) -> str:
    """SHA-256 of plain JSON, its keys sorted."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class SampleFailure(BaseModel):
    """A sample that the model could not be measured on, and what it raised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: int
    error: str


class BlockFacts(BaseModel):
    """What one block's attack did; `run` is the identity of the run that it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: BlockPlan
    calls: int
    sample_forwards: int
    sample_backwards: int
    rows_unassigned: int
    first_nonfinite: int | None
    segments: tuple[Segment, ...]
    warnings: tuple[str, ...]
    failures: tuple[SampleFailure, ...] = ()
    run: str = ""
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
    files: dict[str, str] = {}
