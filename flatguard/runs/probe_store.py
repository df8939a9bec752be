"""What our own experiments leave in a run folder: `evidence/probes/NAME/`, one folder a probe.

    probe.json            facts, seed, price, SHA-256 of the folder's files
    timing.json           seconds; outside the checksums
    *.parquet             tables; each has a column `sample`
    fooled.safetensors    `sample`, `images`: verified adversarial examples, at most 100

A probe is written under a temporary name and renamed when it is whole; what is there stays.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, field_validator
from torch import Tensor

from flatguard.errors import RunFolderError
from flatguard.runs.facts import FileName, Number
from flatguard.runs.schema import check_columns, check_known
from flatguard.runs.store import (
    EVIDENCE,
    MANIFEST,
    TIMING,
    Run,
    parse,
    reading,
    sealed,
    sha256,
    write_text,
)
from flatguard.runs.untrusted import (
    check_file,
    is_plain_file,
    is_plain_folder,
    read_tensors,
)
from flatguard.runs.writing import checksums, give_name, staged, unstage

FOOLED = "fooled.safetensors"
COLUMNS = {
    "attempts": {"sample", "attempt", "family", "fooled"},
    "repeated": {"sample", "difference", "flips"},
    "survival": {"sample", "wrong"},
    "sweep": {"sample", "sight", "eps", "fooled"},
    "scales": {"sample", "factor", "log_kappa", "fooled", "fooled_by_best"},
    "drops": {"sample", "point", "candidate", "drop"},
    "weight_losses": {
        "sample", "case", "index", "clean_loss", "clean_wrong", "robust_loss", "robust_wrong",
    },
    "landscape": {"sample", "direction", "t", "clean_loss", "robust_loss"},
    "gradients": {
        "sample", "point", "loss_state", "loss_norm", "margin_state", "margin_norm", "predicted",
        "measured", "moves",
    },
}  # fmt: skip
"""What a table must have; others need only `sample`."""


OWN: Literal["test"] = "test"
"""The part of the data that a run's own samples are."""


class _Ascent(BaseModel):
    steps: Number
    restarts: Number


class _Around(BaseModel):
    xi: FiniteFloat
    worst_xi: FiniteFloat


class _KnownFacts(BaseModel):
    """Facts that checks and reports read; a probe may have others."""

    kind: str = ""
    part: Literal["test", "training", "held-out"] = OWN
    ascent: _Ascent | None = None
    around: _Around | None = None
    reason: str = ""
    queries: Number = 0
    steps: Number = 0
    met: dict[str, dict[str, int]] = {}
    refused: dict[str, str] = {}


class ProbeFacts(BaseModel):
    """What one of our own experiments did.

    Attributes:
        name: of the probe, with what it was asked for: `square-200`.
        checks: the level that asked for it.
        ran: False where it could not; `facts` then has the reason.
        facts: its own, in numbers and words.
        sample_forwards: rows that it sent forward through the target, its twins and surrogates.
        seed: of its random choices.
        run_sha256: identity of the run that it belongs to; before format 3, of its manifest's file.
        files: SHA-256 of its files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FileName
    checks: str
    ran: bool
    facts: dict[str, Any]
    sample_forwards: Number
    seed: Number
    run_sha256: str = ""
    files: dict[FileName, str] = {}

    @field_validator("facts")
    @classmethod
    def _known(cls, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts that checks read have one kind each."""
        _KnownFacts.model_validate(facts)
        return facts


def load_probes(run: Run) -> dict[str, ProbeFacts]:
    """What was run, by the probe's name.

    Raises:
        RunFolderError: a probe is damaged, or belongs to another run.
    """
    folder = run.path / EVIDENCE / "probes"
    found = {}
    for file in sorted(folder.glob("[!.]*/probe.json")) if is_plain_folder(folder) else []:
        is_plain_folder(file.parent)
        facts: ProbeFacts = parse(ProbeFacts, file)
        if facts.name != file.parent.name:
            raise RunFolderError(f"{file} is damaged: it is of another probe")
        if facts.run_sha256 != _identity(run):
            raise RunFolderError(f"{file} belongs to another run")
        found[facts.name] = facts
    return found


def _identity(run: Run) -> str:
    return run.manifest.identity or sha256(run.path / EVIDENCE / MANIFEST)


def load_tables(run: Run, facts: ProbeFacts) -> dict[str, pd.DataFrame]:
    """The tables of one probe, by name, after comparing their checksums.

    Raises:
        RunFolderError: names the first file that is not what was written.
    """
    tables = {}
    for name, expected in facts.files.items():
        file = _folder(run, facts.name) / name
        with reading(file):
            check_file(file)
            if sha256(file) != expected:
                raise RunFolderError(f"{file} is damaged: its checksum does not match")
            if file.suffix == ".parquet":
                wanted = COLUMNS.get(file.stem, {"sample"})
                table = check_columns(file, run.room.read(file), wanted)
                if facts.facts.get("part", OWN) == OWN:  # others are about other data
                    check_known(file, table, set(run.samples["sample"]))
                tables[file.stem] = table
    return tables


def load_fooled(run: Run, name: str) -> dict[int, Tensor]:
    """The verified adversarial examples that a probe kept, by sample number."""
    file = _folder(run, name) / FOOLED
    if not is_plain_file(file):
        return {}
    with reading(file):
        kept = read_tensors(file)
        numbers, images = kept["sample"].tolist(), kept["images"]
        known = set(run.samples["sample"])
        if images.shape[1:] != run.manifest.data.image_shape or not known >= set(numbers):
            raise RunFolderError(f"{file} is damaged: it is not about samples of this run")
        return dict(zip(numbers, images.float(), strict=True))


def add_probe(
    run: Run,
    facts: ProbeFacts,
    tables: dict[str, pd.DataFrame],
    fooled: dict[int, Tensor],
    seconds: float,
) -> None:
    """Add a probe's evidence to the folder, all of it at once.

    Args:
        run: the run.
        facts: about the whole probe.
        tables: by name.
        fooled: verified adversarial examples, by sample number.
        seconds: how long it took.
    """
    final = _folder(run, facts.name)
    is_plain_folder(final.parent)
    folder = staged(run.path, facts.name)
    try:
        folder.mkdir(parents=True)
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)
        if fooled:
            _save_fooled(folder / FOOLED, fooled)
        about = {"files": checksums(folder), "run_sha256": _identity(run)}
        write_text(folder / "probe.json", sealed(facts.model_copy(update=about)))
        write_text(folder / TIMING, json.dumps({"probe": seconds}, indent=2))
        if final.exists() and not parse(ProbeFacts, final / "probe.json").ran:
            shutil.rmtree(final)  # it could not run then
        give_name(folder, final)  # if somebody else has run the same probe meanwhile, theirs stays
    except OSError as error:
        raise RunFolderError(f"cannot write probe {final}: {error}") from error
    finally:
        unstage(folder)
    run.storage.push()


def _save_fooled(file: Path, fooled: dict[int, Tensor]) -> None:
    from safetensors.torch import save_file

    numbers = sorted(fooled)
    images = torch.stack([fooled[number].float() for number in numbers])
    save_file({"sample": torch.tensor(numbers), "images": images.contiguous()}, file)


def _folder(run: Run, name: str) -> Path:
    return run.path / EVIDENCE / "probes" / name
