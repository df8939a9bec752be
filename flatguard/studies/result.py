"""The result of a study: its claims, and everything that they rest on."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from flatguard.studies.claim import Claim

_FORMAT = 1


class ModelFacts(BaseModel):
    """A model that a study was run on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    weights_sha256: str


class Shown(BaseModel):
    """The samples of a study, and the attack on them.

    Attributes:
        protocol: the attack, in words.
        data, sha256, samples: the data set, the hash of the samples, and their number.
        seed: of every random choice.
        device: the device of the models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: str
    data: str
    sha256: str
    samples: int
    seed: int
    device: str


class Result(BaseModel):
    """A study's claims and their provenance: what `--json` prints.

    Attributes:
        format: of this object; rises when a field changes its meaning.
        study, paper, reference, claim: the study's.
        claims: each with its verdict.
        figures: the numbers behind the paper's panels.
        notes: on the method that all claims share.
        models: in the given order; none for a calculation.
        shown: the samples and the attack; None for a calculation.
        versions: of flatguard and of the packages that can change a number.
        created, seconds: the time of the result, and how long it took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = _FORMAT
    study: str
    paper: str
    reference: str
    claim: str
    claims: tuple[Claim, ...]
    figures: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    models: tuple[ModelFacts, ...]
    shown: Shown | None
    versions: dict[str, str]
    created: str
    seconds: float
