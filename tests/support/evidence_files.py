"""The bytes of a run's evidence, but for what passes: when it was made, and how long it took."""

from __future__ import annotations

import json
from pathlib import Path

PASSING = ("created", "command", "seal")


def evidence_files(run: Path) -> dict[str, bytes]:
    """Every file by its name in the folder; of the manifest, all but `PASSING`."""
    found = {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted((run / "evidence").rglob("*"))
        if file.is_file() and file.name != "timing.json"
    }
    manifest = json.loads(found["evidence/manifest.json"])
    kept = {name: value for name, value in manifest.items() if name not in PASSING}
    found["evidence/manifest.json"] = json.dumps(kept).encode()
    return found
