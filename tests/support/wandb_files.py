"""Reads what wandb wrote offline: the records of a `.wandb` file, as wandb's own messages.

wandb has no reader in Python any more. Its file is a log of LevelDB's format after a header of
seven bytes: blocks of 32 KiB, and in them records of checksum (4), length (2), type (1) and data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _PREFIX = 7, 32768, 7
_FULL, _LAST = 1, 4


@dataclass
class Offline:
    """A run of wandb.

    Attributes:
        name: as it is shown.
        config: its parameters.
        summary: its numbers.
        tags: its labels.
        artifacts: the files of each artifact, by its name.
        history: how many steps were added.
        exits: how often it was finished.
    """

    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    history: int = 0
    exits: int = 0


def read(file: Path) -> Offline:
    """All records of a file, in their order, put together."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = Offline()
    for data in _records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.name, found.tags = record.run.display_name, list(record.run.tags)
            _update(found.config, record.run.config.update)
        elif kind == "config":
            _update(found.config, record.config.update)
        elif kind == "summary":
            _update(found.summary, record.summary.update)
        elif kind == "artifact":
            entries = record.artifact.manifest.contents
            found.artifacts[record.artifact.name] = [entry.path for entry in entries]
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            artifact = record.request.log_artifact.artifact
            found.artifacts[artifact.name] = [entry.path for entry in artifact.manifest.contents]
        found.history += kind == "history"
        found.exits += kind == "exit"
    return found


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        *path, last = item.nested_key or [item.key]
        inside = values
        for key in path:
            inside = inside.setdefault(key, {})
        inside[last] = json.loads(item.value_json)


def _records(content: bytes) -> Iterator[bytes]:
    at, parts = _HEADER, b""
    while at + _PREFIX <= len(content):
        if _BLOCK - at % _BLOCK < _PREFIX:  # the rest of a block is empty
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + _PREFIX : at + _PREFIX + length]
        at += _PREFIX + length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""
