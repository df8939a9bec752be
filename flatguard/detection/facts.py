"""The base of every record that detection writes to JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Facts(BaseModel):
    """Frozen; an unknown key is an error. None is a number that was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")
