"""Reads and writes the JSON files of a run folder, with or without a seal.

A seal is the SHA-256 of a file's own content. Every JSON file of the evidence has one. Files that
are derived from the evidence have none: they can be deleted and made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from flatguard.environment.system import replace, sync
from flatguard.errors import NoRoom, RunFolderError, no_room, one_line, refused
from flatguard.runs.facts import digest
from flatguard.runs.untrusted import read_text

Kind = TypeVar("Kind", bound=BaseModel)


def write_text(file: Path, text: str) -> None:
    """Replace a file atomically: a reader sees the old text or the new one.

    Raises:
        NoRoom: the disk is full.
        OSError: with the file's name.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # left by a process that died, or a link to another file
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        replace(temporary, file)
        sync(file.parent)
    except OSError as error:
        error.filename = str(file)  # the user does not know the temporary name
        why = no_room(error)
        if why is None:
            raise
        raise NoRoom(f"cannot write {file}: {why}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_sealed(file: Path, facts: BaseModel) -> str:
    """Write a model as JSON with the seal of its content; returns the seal."""
    content = json.loads(facts.model_dump_json())
    seal = digest(content)
    write_text(file, json.dumps({**content, "seal": seal}, indent=2))
    return seal


def read_json(kind: type[Kind], file: Path) -> Kind:
    """A JSON file without a seal, as a pydantic model.

    Raises:
        RunFolderError: one line that names the file and what is damaged.
    """
    with reading(file):
        return _validated(kind, file, read_text(file))


def read_sealed(kind: type[Kind], file: Path, seal_begins: str = "") -> Kind:
    """A JSON file with a seal, as a pydantic model.

    Args:
        kind: of the model.
        file: of the evidence.
        seal_begins: the seal must begin with this.

    Raises:
        RunFolderError: one line that names the file and what is damaged.
    """
    with reading(file):
        content = json.loads(read_text(file))
        seal = content.pop("seal", None) if isinstance(content, dict) else None
        if seal != digest(content) or not seal.startswith(seal_begins):
            raise RunFolderError(f"{file} is damaged: its checksum does not match")
        return _validated(kind, file, json.dumps(content))


def _validated(kind: type[Kind], file: Path, text: str) -> Kind:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunFolderError(f"{file} is damaged: {where or first['msg']}") from error


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn every error while a file is read into one line that names it."""
    try:
        yield
    except RunFolderError:
        raise
    except Exception as error:  # pyarrow, safetensors and json raise their own
        if refused(error):
            raise RunFolderError(f"{file} cannot be read: {one_line(error)}") from error
        raise RunFolderError(f"{file} is damaged: {one_line(error)}") from error
