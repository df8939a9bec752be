"""Made-up runs of any size, written through the project's own store; nothing is attacked.

Losses rise along a path, log κ climbs a ridge and falls into a valley, a third of the samples
survives, and most survivors fall to the temperature twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from flatguard.attacks.monitor import Segment
from flatguard.data.dataset import Batch
from flatguard.data.hashing import DataHash
from flatguard.recording.attribution import How
from flatguard.recording.measure import COLUMNS
from flatguard.recording.trajectory import CallRows, to_frame
from flatguard.request import EvaluationRequest
from flatguard.runs import writing
from flatguard.runs.check_evidence import ProbeFacts, add_probe
from flatguard.runs.facts import BlockFacts, BlockPlan, DataFacts, Manifest, TargetFacts
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import open_storage

EPS = 8 / 255
TWINS = {
    "control": ("control", 0.02), "temperature": ("temperature", 0.8), "float64": ("float64", 0.1),
    "margin": ("loss", 0.7),
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much is made up."""

    samples: int = 10_000
    steps: int = 100
    block: int = 500
    side: int = 32


@dataclass(frozen=True)
class Names:
    """What other people may call things."""

    model: str = "made up"
    data: str = "noise"
    classes: tuple[str, ...] = tuple("abcdefghij")
    twin: str = "temperature"


def make_run(path: Path, size: Size, names: Names = Names(), seed: int = 0) -> Run:
    """Write a complete run; it is not judged yet."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(
        rng.integers(0, 256, (size.samples, 3, size.side, size.side), np.uint8)
    )
    labels = torch.from_numpy(rng.integers(0, len(names.classes), size.samples))
    manifest = _manifest(size, names, pixels, labels).identified()
    writing.create(open_storage(path), manifest)
    robust = rng.random(size.samples) < 1 / 3
    for start in range(0, size.samples, size.block):
        stop = min(start + size.block, size.samples)
        _write_block(path, size, manifest.identity, range(start, stop), pixels, labels, robust, rng)
    run = load_run(path)
    _add_probes(run, names, rng)
    return run


def _manifest(size: Size, names: Names, pixels: torch.Tensor, labels: torch.Tensor) -> Manifest:
    hashes, each = DataHash(), []
    for start in range(0, size.samples, size.block):
        part = slice(start, start + size.block)
        batch, alone = Batch(pixels[part].float() / 255.0, labels[part]), DataHash()
        alone.update(batch)
        each.append(alone.hexdigest())
        hashes.update(batch)
    request = EvaluationRequest(
        model=names.model, dataset=names.data, attack="torchattacks:PGD", norm="Linf", eps="8/255",
        n_examples=size.samples, batch_size=size.block, device="cpu", max_failures=0,
    )  # fmt: skip
    plans = [
        BlockPlan(index=i, start=start, stop=min(start + size.block, size.samples), seed=i)
        for i, start in enumerate(range(0, size.samples, size.block))
    ]
    return Manifest(
        created="2026-01-02T03:04:05+00:00", command=("flatguard", "evaluate", names.model),
        request=request, attack_args={"steps": size.steps}, blocks=tuple(plans),
        target=TargetFacts(
            name=names.model, source="nowhere", weights_sha256="0" * 64,
            num_classes=len(names.classes), head="head", head_scale=1.0, head_reason=None,
            log_weight_norm_squared=1.0, notes=(),
        ),
        data=DataFacts(
            name=names.data, size=size.samples, sha256=hashes.hexdigest(),
            image_shape=(3, size.side, size.side), classes=names.classes, blocks=tuple(each),
        ),
        versions={"flatguard": "0"}, device={"type": "cpu"},
    )  # fmt: skip


def _write_block(
    path: Path, size: Size, run: str, numbers: range, pixels: torch.Tensor, labels: torch.Tensor,
    robust: np.ndarray, rng: np.random.Generator,
) -> None:  # fmt: skip
    n, part = len(numbers), slice(numbers.start, numbers.stop)
    alive, label = robust[part], labels[part].numpy()
    index = numbers.start // size.block
    plan = BlockPlan(index=index, start=numbers.start, stop=numbers.stop, seed=index)
    first = _values(0.0, alive, label, rng)
    last = first
    with writing.BlockWriter(path, plan.index) as writer:
        for call in range(size.steps):
            last = _values((call + 1) / size.steps, alive, label, rng)
            how = np.full(n, How.ORDER.value)
            rows = CallRows(call, 0, np.arange(n), how, last)
            writer.append(to_frame([rows], first_sample=numbers.start))
        clean = pixels[part].float() / 255.0
        noise = EPS * torch.from_numpy(rng.choice([-1.0, 1.0], clean.shape)).float()
        facts = BlockFacts(
            plan=plan, calls=size.steps, sample_forwards=n * size.steps,
            sample_backwards=n * size.steps, rows_unassigned=0, first_nonfinite=None,
            segments=(Segment("PGD"),), warnings=(), run=run,
        )  # fmt: skip
        table = _samples(numbers, label, alive, first, last)
        writer.commit(table, clean, (clean + noise).clamp(0, 1), facts, {"attack": 1.0})


def _values(
    done: float, alive: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What a call measures, in the order of `COLUMNS`."""
    n, progress = len(label), np.where(alive, 0.1 * done, done)
    ridge = 6.0 * np.exp(-((progress - 0.3) ** 2) / 0.02) - 25.0 * np.clip(progress - 0.3, 0, 1)
    margin = np.where(alive, 5.0, 5.0 - 16.0 * done) + 0.2 * rng.random(n)
    columns = {
        "loss": 20.0 * progress + rng.random(n),
        "log_kappa": -4.0 + ridge + rng.normal(size=n),
        "trace": np.ones(n),
        "feature_norm": 2.0 + rng.random(n),
        "confidence": np.clip(0.9 + 0.1 * rng.random(n), 0, 1),
        "margin": margin,
        "prediction": np.where(margin < 0, (label + 1) % 10, label),
        "linf": np.full(n, EPS * done),
        "l2": np.full(n, done),
    }
    return np.stack([columns[name] for name in COLUMNS], axis=1).astype(float)


def _samples(
    numbers: range, label: np.ndarray, alive: np.ndarray, first: np.ndarray, last: np.ndarray
) -> pd.DataFrame:
    table = pd.DataFrame({"sample": list(numbers), "label": label})
    for index, name in enumerate(COLUMNS):
        if name not in ("linf", "l2"):
            table[f"clean_{name}"], table[f"adv_{name}"] = first[:, index], last[:, index]
    whole = {"clean_prediction": "int64", "adv_prediction": "int64"}
    table = table.astype(whole).assign(linf=EPS, l2=1.0, distance=EPS, admissible=True)
    found: pd.DataFrame = table.assign(clean_correct=True, robust=alive, failed=False)
    return found


def _add_probes(run: Run, names: Names, rng: np.random.Generator) -> None:
    samples = run.samples
    survivors = samples.loc[samples["robust"], "sample"].to_numpy()
    attempts = pd.concat(
        pd.DataFrame(
            {"sample": survivors, "attempt": names.twin if name == "temperature" else name,
             "family": family, "fooled": rng.random(len(survivors)) < share, "forwards": 20.0}
        )
        for name, (family, share) in TWINS.items()
    )  # fmt: skip
    repeated = pd.DataFrame({"sample": samples["sample"], "difference": 0.0, "flips": False})
    tables = {"twins": {"attempts": attempts}, "determinism": {"repeated": repeated}}
    for name, found in tables.items():
        facts = ProbeFacts(
            name=name,
            checks="fast",
            ran=True,
            facts={"randomised": False},
            sample_forwards=1,
            seed=0,
        )  # fmt: skip
        add_probe(run, facts, found, {}, 1.0)
