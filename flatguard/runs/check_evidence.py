"""The evidence that a check gathers: `evidence/probes/NAME/`, one folder a probe.

A probe is one experiment of ours on the target, such as an attack on its twins.

    probe.json            facts, seed, cost, SHA-256 of the folder's files
    timing.json           seconds
    *.parquet             tables; each has a column `sample`
    fooled.safetensors    `sample`, `images`: verified adversarial examples, at most 100

A probe is published as a whole, and its files do not change afterwards. Only a probe that could
not run is replaced when it runs later.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, field_validator
from torch import Tensor

from flatguard.errors import RunFolderError
from flatguard.runs.checksums import compare
from flatguard.runs.facts import FileName, Number
from flatguard.runs.json_files import read_sealed, reading
from flatguard.runs.layout import EVIDENCE, PROBE, PROBES
from flatguard.runs.publishing import complete, publish, stage, unstage, writing
from flatguard.runs.run import Run
from flatguard.runs.schema import check_columns, check_known
from flatguard.runs.untrusted import is_plain_file, is_plain_folder, read_tensors

_FOOLED = "fooled.safetensors"
COLUMNS = {
    "attempts": {"sample", "attempt", "family", "fooled"},
    "confirmed": {"sample", "wrong"},
    "recorded": {"sample", "moved", "held"},
    "repeated": {"sample", "difference", "flips"},
    "survival": {"sample", "wrong"},
    "sweep": {"sample", "sight", "eps", "fooled"},
    "scales": {"sample", "factor", "fooled", "fooled_by_best"},
    "responses": {"sample", "candidate", "agreement", "closer"},
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


PREFLIGHT = "preflight"
"""The probe that is gathered before the first block; see `flatguard.checks.preflight`."""

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
    """What a probe did.

    Attributes:
        name: of the probe, with its parameter: `square-200`.
        checks: the level of checks that it belongs to.
        ran: False if it could not run; `facts` then has the reason.
        facts: its results that are not in a table.
        sample_forwards: rows that it sent forward through the target, its twins and surrogates.
        seed: of its random choices.
        run_sha256: identity of the run that it belongs to.
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
        """Facts that checks read have one type each."""
        _KnownFacts.model_validate(facts)
        return facts


def load_probes(run: Run) -> dict[str, ProbeFacts]:
    """The facts of all probes of a run, by the probe's name.

    Raises:
        RunFolderError: a probe is damaged, or belongs to another run.
    """
    folder = run.path / EVIDENCE / PROBES
    found = {}
    for file in sorted(folder.glob(f"[!.]*/{PROBE}")) if is_plain_folder(folder) else []:
        is_plain_folder(file.parent)
        facts = read_sealed(ProbeFacts, file)
        if facts.name != file.parent.name:
            raise RunFolderError(f"{file} is damaged: it is of another probe")
        if facts.run_sha256 != run.manifest.identity:
            raise RunFolderError(f"{file} belongs to another run")
        found[facts.name] = facts
    return found


def price_of_checks(run: Run) -> int:
    """The sample-forwards of all probes. Preflight is no part of it, as the clean pass is not."""
    probes = load_probes(run)
    return sum(facts.sample_forwards for name, facts in probes.items() if name != PREFLIGHT)


def load_tables(run: Run, facts: ProbeFacts) -> dict[str, pd.DataFrame]:
    """The tables of one probe, by name, after their checksums are compared.

    Raises:
        RunFolderError: names the first file that is damaged.
    """
    folder = _folder(run, facts.name)
    compare(folder, facts.files)
    tables = {}
    for name, digest in facts.files.items():
        if name.endswith(".parquet"):
            read = partial(_read_table, run, facts, folder / name)
            tables[Path(name).stem] = run.kept.get(f"{facts.name}/{name} {digest}", read)
    return tables


def _read_table(run: Run, facts: ProbeFacts, file: Path) -> pd.DataFrame:
    with reading(file):
        wanted = COLUMNS.get(file.stem, {"sample"})
        wanted = wanted | {run.sharpness.column} if file.stem == "scales" else wanted
        table = check_columns(file, run.room.read(file), wanted)
        if facts.facts.get("part", OWN) == OWN:  # others are about other data
            check_known(file, table, set(run.samples["sample"]))
    return table


def load_fooled(run: Run, name: str) -> dict[int, Tensor]:
    """The verified adversarial examples that a probe kept, by sample number."""
    file = _folder(run, name) / _FOOLED
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
    """Publish a probe's evidence.

    If another process has published the same probe meanwhile, nothing changes.

    Args:
        run: the run.
        facts: about the whole probe.
        tables: by name.
        fooled: verified adversarial examples, by sample number.
        seconds: the time that it took.
    """
    final = _folder(run, facts.name)
    is_plain_folder(final.parent)
    folder = stage(run.path, facts.name)
    try:
        with writing(f"probe {final}"):
            folder.mkdir(parents=True)
            for name, table in tables.items():
                table.to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)
            if fooled:
                _save_fooled(folder / _FOOLED, fooled)
            owned = facts.model_copy(update={"run_sha256": run.manifest.identity})
            complete(folder, PROBE, owned, {"probe": seconds})
            could_not_run = final.exists() and not read_sealed(ProbeFacts, final / PROBE).ran
            publish(folder, final, replaces=could_not_run)
    finally:
        unstage(folder)
    run.storage.push()


def _save_fooled(file: Path, fooled: dict[int, Tensor]) -> None:
    from safetensors.torch import save_file

    numbers = sorted(fooled)
    images = torch.stack([fooled[number].float() for number in numbers])
    save_file({"sample": torch.tensor(numbers), "images": images.contiguous()}, file)


def _folder(run: Run, name: str) -> Path:
    return run.path / EVIDENCE / PROBES / name
