"""Makes an edited run folder whole again, as whoever writes one can: checksums and seals fit.

So a hostile file reaches the checks behind them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flatguard.runs.checksums import sha256
from flatguard.runs.facts import digest
from flatguard.runs.layout import committed


def block_folder(run: Path, index: int = 0) -> Path:
    """Where a committed block lies; its name changes with its content."""
    return committed(run)[index]


def seal(file: Path, content: dict[str, Any]) -> Path:
    """Write a JSON file of the evidence with the seal of its content; a block is named after it."""
    plain = {name: value for name, value in content.items() if name != "seal"}
    mark = digest(plain)
    file.write_text(json.dumps({**plain, "seal": mark}), "utf-8")
    if file.name != "block.json":
        return file
    named = file.parent.with_name(f"{file.parent.name.partition('-')[0]}-{mark[:12]}")
    return file.parent.rename(named) / file.name


def forge(file: Path, edit: Callable[[Any], object]) -> Path:
    """Edit a JSON file of the evidence, and seal it."""
    content = json.loads(file.read_text("utf-8"))
    edit(content)
    return seal(file, content)


def sign(block: Path, name: str = "samples.parquet") -> Path:
    """Give a block the checksum of a file that was edited, and its new name."""
    checksum = {name: sha256(block / name)}
    return forge(block / "block.json", lambda facts: facts["files"].update(checksum)).parent
