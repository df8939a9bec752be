"""What a verdict rests on, without images and paths: enough to judge a pair again, with no attack.

A folder for each pair and level in the git-ignored cache: the run's table of samples, and the
facts and tables of its probes, as JSON and Parquet. It holds no code, and reading it runs none.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.masking_zoo.train import CACHE
from flatguard.checks.evidence import Evidence, ProbeEvidence

SAMPLES, FACTS = "samples.parquet", "facts.json"
_APART = ("samples", "trajectory", "probes")
"""The fields of evidence that are no numbers or words."""


def folder_of(pair: str, checks: str) -> Path:
    """Where the evidence of a pair at a level is kept."""
    return CACHE / "evidence" / checks / pair


def keep(evidence: Evidence, folder: Path) -> None:
    """Write it, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers = {f.name: getattr(evidence, f.name) for f in fields(Evidence) if f.name not in _APART}
    probes = {}
    for name, probe in evidence.probes.items():
        probes[name] = {"facts": probe.facts, "tables": sorted(probe.tables)}
        for table, frame in probe.tables.items():
            frame.to_parquet(folder / _file(name, table))
    evidence.samples.to_parquet(folder / SAMPLES)
    text = json.dumps({"numbers": numbers, "probes": probes}, default=_plain)
    (folder / FACTS).write_text(text, "utf-8")


def load(folder: Path) -> Evidence | None:
    """The kept evidence; None where there is none."""
    if not (folder / FACTS).is_file():
        return None
    stored = json.loads((folder / FACTS).read_text("utf-8"))
    probes = {
        name: ProbeEvidence(
            probe["facts"],
            {table: pd.read_parquet(folder / _file(name, table)) for table in probe["tables"]},
        )
        for name, probe in stored["probes"].items()
    }
    samples = pd.read_parquet(folder / SAMPLES)
    return Evidence(samples=samples, trajectory=(), probes=probes, **stored["numbers"])


def _file(probe: str, table: str) -> str:
    return f"{probe}.{table}.parquet"


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item()
