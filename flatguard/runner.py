"""Fills a run folder: resolve, load, look at the clean images, attack block by block, store."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from flatguard.attacks import Attack, AttackInfo, build_attack, check_args, find_attack
from flatguard.errors import AttackError, DataError, EnvironmentProblem, ModelError, UsageError
from flatguard.geometry.budget import Budget, Norm, distance
from flatguard.randomness import seeded
from flatguard.recording.measure import COLUMNS
from flatguard.recording.recorder import Recorder
from flatguard.recording.trajectory import NARROW
from flatguard.runs import store
from flatguard.runs.spec import RunSpec, derive_seed
from flatguard.targets import Target, load_target, prepare
from flatguard.targets.datasets import Batch, DataHash, Dataset, blocks, check_labels, load_dataset
from flatguard.targets.head import HeadSearch

DEFAULT_N_EXAMPLES = 1000
LARGEST_BATCH = 128
BATCH_VALUES = 5_000_000
"""A batch holds about this many pixel values: 128 at CIFAR's size, 32 at ImageNet's."""

FIRST_LOOK = 8
VERSIONS_OF = (
    "flatguard", "torch", "torchvision", "torchattacks", "pyautoattack", "autoattack",
    "robustbench", "foolbox", "timm", "numpy", "pandas",
)  # fmt: skip


class Observer(Protocol):
    """Who watches a run: a progress bar, or nobody."""

    def said(self, line: str) -> None:
        """A line for a person."""

    def stage(self, name: str, total: int, calls_each: int | None = None) -> None:
        """A stage of `total` samples begins; each takes about `calls_each` model calls."""

    def advanced(self, samples: int) -> None:
        """That many samples are done."""

    def called(self, rows: int) -> None:
        """The model was called on that many rows."""


class Silent:
    """An observer who looks away."""

    def said(self, line: str) -> None:
        """Nothing."""

    def stage(self, name: str, total: int, calls_each: int | None = None) -> None:
        """Nothing."""

    def advanced(self, samples: int) -> None:
        """Nothing."""

    def called(self, rows: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Job:
    """A resolved spec with everything loaded that it names."""

    spec: RunSpec
    target: Target
    dataset: Dataset
    attack: Attack
    device: torch.device

    @property
    def count(self) -> int:
        """How many samples are evaluated."""
        return _resolved(self.spec.n_examples)

    @property
    def block_size(self) -> int:
        """How many samples are attacked together."""
        return _resolved(self.spec.batch_size)


@dataclass(frozen=True)
class CleanPass:
    """What the clean images showed: rows of measurements, and the hash of what was served."""

    values: pd.DataFrame
    sha256: str


def resolve(
    spec: RunSpec,
    target: Target | None = None,
    dataset: Dataset | None = None,
) -> Job:
    """Load what a spec names and fill in its defaults.

    Cheap checks come first, so that a typo is found before a model is loaded.

    Args:
        spec: what is asked for.
        target: instead of loading `spec.model`.
        dataset: instead of loading `spec.dataset`.
    """
    info = find_attack(spec.attack)
    check_args(info, spec.attack_args)
    device = _device(spec.device)
    if spec.norm is not None:
        _agreed_norm(info, spec.norm, None)
    target = target or load_target(
        spec.model,
        dataset=spec.dataset,
        threat_model=spec.threat_model,
        model_dir=spec.model_dir,
        arch=spec.arch,
        mean=spec.mean,
        std=spec.std,
        allow_code=spec.allow_code,
    )
    budget_fields = _budget_fields(spec, info, target)
    data_name = dataset.name if dataset else _dataset_name(spec, target)
    preprocessing = spec.preprocessing or target.defaults.preprocessing
    dataset = dataset or load_dataset(
        data_name,
        n_examples=spec.n_examples or DEFAULT_N_EXAMPLES,
        data_dir=spec.data_dir,
        preprocessing=preprocessing,
    )
    count = _count(spec.n_examples, dataset)
    first = dataset.block(0, min(count, FIRST_LOOK)).images.to(device)
    target.model.to(device)
    with seeded(derive_seed(spec.seed, 0, "first look"), device):
        target = prepare(target, first, head=spec.head, logit_scale=spec.logit_scale)
    resolved = spec.model_copy(
        update={
            "dataset": data_name,
            "preprocessing": preprocessing,
            "n_examples": count,
            "attack": info.name,
            "batch_size": spec.batch_size or _batch_size(first[0].numel()),
            "device": str(device),
            **budget_fields,
        }
    )
    attack = build_attack(
        info.name, resolved.budget(), _resolved(target.num_classes), spec.attack_args
    )
    return Job(resolved, target, dataset, attack, device)


def run(job: Job, out: Path, command: Sequence[str], observer: Observer) -> store.Run:
    """Evaluate a job into a new run folder; nothing is written before the clean pass ends.

    Raises:
        RunFolderError: if the folder exists or cannot be written.
        ModelError, DataError: from the clean pass, with nothing written.
        AttackError: from the attack; the blocks done before it stay, and the run is incomplete.
    """
    store.check_new(out)
    clean = _clean_pass(job, observer)
    manifest = _manifest(job, clean, command)
    store.create(out, manifest)
    observer.stage(f"attack {job.attack.info.name}", job.count, job.attack.expected_calls())
    for plan in manifest.blocks:
        rows = clean.values.iloc[plan.start : plan.stop]
        store.write_block(out, _attack_block(job, plan, rows, observer))
        observer.advanced(plan.stop - plan.start)
    return store.load_run(out)


def describe(job: Job) -> str:
    """The first line that a run prints: what is evaluated, on what, within what."""
    spec, target = job.spec, job.target
    pieces = [
        f"{target.name} ({target.source})",
        f"{job.count} of {len(job.dataset)} images from {job.dataset.name}",
        f"{job.attack.info.name} within {job.attack.budget}",
        f"{target.num_classes} classes",
        f"batches of {spec.batch_size} on {job.device}",
        f"seed {spec.seed}",
    ]
    if spec.preprocessing:
        pieces.insert(2, f"preprocessing {spec.preprocessing}")
    if spec.logit_scale != 1.0:
        pieces.insert(1, f"logits × {spec.logit_scale:g}")
    return "; ".join(pieces)


def _resolved(value: int | None) -> int:
    if value is None:
        raise ValueError("the spec is not resolved")
    return value


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EnvironmentProblem(f"--device {name} is not available here; use cpu") from error
    return device


def _agreed_norm(info: AttackInfo, wanted: Norm | None, default: Norm | None) -> Norm:
    if wanted is not None:
        if wanted not in info.norms:
            raise AttackError(
                f"--norm {wanted} does not agree with {info.name}, "
                f"which measures {' or '.join(info.norms)}"
            )
        return wanted
    if default in info.norms and default is not None:
        return default
    if len(info.norms) == 1:
        return info.norms[0]
    raise UsageError(f"--norm is needed: {info.name} measures {', '.join(info.norms)}")


def _budget_fields(spec: RunSpec, info: AttackInfo, target: Target) -> dict[str, Any]:
    defaults = target.defaults
    is_corruption_entry = defaults.dataset is not None and defaults.norm is None
    if is_corruption_entry and (spec.norm is None or spec.eps is None):
        raise UsageError(
            f"{target.name} is a corruption entry without a norm and radius of its own; "
            "name both with --norm and --eps"
        )
    norm = _agreed_norm(info, spec.norm, defaults.norm)
    if norm == "none":
        if spec.eps is not None:
            raise UsageError(f"{info.name} knows no budget, so --eps has no meaning for it")
        return {"norm": norm, "eps": None}
    eps = spec.eps or (defaults.eps if norm == defaults.norm else None)
    if eps is None:
        raise UsageError(f"--eps is needed: {target.name} has no radius of its own in {norm}")
    return {"norm": norm, "eps": eps}


def _dataset_name(spec: RunSpec, target: Target) -> str:
    name = spec.dataset or target.defaults.dataset
    if name is None:
        raise UsageError(f"--dataset is needed: {target.name} has no data set of its own")
    return name


def _count(asked: int | None, dataset: Dataset) -> int:
    if asked is not None and asked > len(dataset):
        raise DataError(f"--n-examples {asked}: {dataset.name} has only {len(dataset)} images")
    return asked or min(DEFAULT_N_EXAMPLES, len(dataset))


def _batch_size(values: int) -> int:
    fitting = max(1, BATCH_VALUES // values)
    return int(min(LARGEST_BATCH, 2 ** (fitting.bit_length() - 1)))


def _clean_pass(job: Job, observer: Observer) -> CleanPass:
    observer.stage("clean images", job.count)
    hashes, frames = DataHash(), []
    for start, batch in blocks(job.dataset, job.count, job.block_size):
        hashes.update(batch)
        check_labels(batch, _resolved(job.target.num_classes), job.dataset.name, start)
        seed = derive_seed(job.spec.seed, start // job.block_size, "clean")
        frame = _measured(job, batch, batch.images, seed)
        bad = frame["loss"].isna()
        if bad.any():
            raise ModelError(
                f"{job.target.name} gives NaN or infinite logits for {int(bad.sum())} of the clean "
                f"images, the first of them sample {start + int(bad.to_numpy().argmax())}"
            )
        frames.append(frame)
        observer.advanced(len(batch))
    return CleanPass(pd.concat(frames, ignore_index=True), hashes.hexdigest())


def _measured(job: Job, batch: Batch, images: Tensor, seed: int) -> pd.DataFrame:
    """One fresh forward pass over `images`, measured against the clean batch."""
    recorder = _recorder(job, batch, keeps_order=True)
    with recorder, torch.no_grad(), seeded(seed, job.device):
        job.target.model(images.to(job.device))
    measured: pd.DataFrame = recorder.trajectory().drop(columns=["sample", "call"])
    return measured


def _recorder(job: Job, batch: Batch, **how: Any) -> Recorder:
    images, labels = batch.images.to(job.device), batch.labels.to(job.device)
    known = HeadSearch(job.target.head, job.target.head_reason)
    return Recorder(job.target.model, images, labels, head=known, **how)


def _attack_block(
    job: Job, plan: store.BlockPlan, clean: pd.DataFrame, observer: Observer
) -> store.BlockEvidence:
    batch = job.dataset.block(plan.start, plan.stop)
    recorder = _recorder(
        job,
        batch,
        budget=job.attack.budget,
        keeps_order=job.attack.info.keeps_order,
        first_sample=plan.start,
        on_call=observer.called,
    )
    images, labels = batch.images.to(job.device), batch.labels.to(job.device)
    began = time.perf_counter()
    with recorder:
        perturbed = job.attack.perturb(job.target.model, images, labels, plan.seed)
    attacked = time.perf_counter()
    adversarial = perturbed.images.cpu()
    return store.BlockEvidence(
        plan=plan,
        samples=_samples(job, plan, batch, adversarial, clean),
        trajectory=recorder.trajectory(),
        adversarial=adversarial,
        calls=recorder.calls,
        sample_forwards=recorder.forwards,
        sample_backwards=recorder.backwards,
        rows_unassigned=recorder.rows_unassigned,
        warnings=perturbed.warnings,
        seconds={"attack": attacked - began, "check": time.perf_counter() - attacked},
    )


def _samples(
    job: Job, plan: store.BlockPlan, batch: Batch, adversarial: Tensor, clean: pd.DataFrame
) -> pd.DataFrame:
    """A row per sample; what is robust is measured here, never taken from the attack."""
    after = _measured(job, batch, adversarial, derive_seed(job.spec.seed, plan.index, "check"))
    table = pd.DataFrame({"sample": range(plan.start, plan.stop), "label": batch.labels.numpy()})
    for name in COLUMNS:
        if name not in ("linf", "l2"):
            table[f"clean_{name}"] = clean[name].to_numpy()
            table[f"adv_{name}"] = after[name].to_numpy()
    table["linf"], table["l2"] = after["linf"], after["l2"]
    inside = within(adversarial, batch.images, job.attack.budget)
    table["distance"] = distance(
        adversarial, batch.images, job.attack.budget.norm
    ).to(torch.float64).numpy()  # fmt: skip
    table["admissible"] = inside.numpy()
    table["clean_correct"] = table["clean_prediction"] == table["label"]
    # A margin that is not finite decides nothing, so it does not count as correct.
    still_right = (table["adv_prediction"] == table["label"]) & table["adv_margin"].notna()
    table["robust"] = table["clean_correct"] & (still_right | ~table["admissible"])
    kept = {name: "float32" for name in table.columns if name.split("_", 1)[-1] in NARROW}
    narrow: pd.DataFrame = table.astype(kept)
    return narrow


def within(images: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """Which images are admissible: finite, in the box [0, 1], and within the budget."""
    flat = images.flatten(1)
    in_box = ((flat >= 0) & (flat <= 1)).all(dim=1)
    return in_box & budget.contains(distance(images, clean, budget.norm))


def _manifest(job: Job, clean: CleanPass, command: Sequence[str]) -> store.Manifest:
    head = job.target.head
    shape = tuple(job.dataset.block(0, 1).images.shape[1:])
    return store.Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=tuple(command),
        spec=job.spec,
        attack_args=job.attack.effective_args(),
        target=store.TargetFacts(
            name=job.target.name,
            source=job.target.source,
            weights_sha256=job.target.weights_sha256,
            num_classes=_resolved(job.target.num_classes),
            head=head.name if head else None,
            head_scale=head.scale if head else None,
            head_reason=job.target.head_reason,
            log_weight_norm_squared=head.log_weight_norm_squared() if head else None,
            notes=job.target.notes,
        ),
        data=store.DataFacts(
            name=job.dataset.name, size=len(job.dataset), sha256=clean.sha256, image_shape=shape
        ),
        blocks=tuple(_plan(job.spec)),
        versions=_versions(),
        device=store.device_facts(job.device),
    )


def _plan(spec: RunSpec) -> list[store.BlockPlan]:
    count, size = _resolved(spec.n_examples), _resolved(spec.batch_size)
    return [
        store.BlockPlan(
            index=index,
            start=start,
            stop=min(start + size, count),
            seed=derive_seed(spec.seed, index, spec.attack),
        )
        for index, start in enumerate(range(0, count, size))
    ]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
