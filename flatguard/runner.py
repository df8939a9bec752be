"""Fills a run folder: look at the clean images, attack block by block, store."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from flatguard.allowance import Allowance
from flatguard.attacks.monitor import Order
from flatguard.errors import (
    BudgetSpent,
    FlatguardError,
    ModelError,
    RunFolderError,
    UsageError,
    one_line,
)
from flatguard.geometry.budget import Budget, distance
from flatguard.job import Job
from flatguard.observer import Observer
from flatguard.randomness import seeded
from flatguard.recording.layers import (
    Layer,
    LayerTable,
    check_layers,
    last_layers,
    measure_points,
    points_of,
)
from flatguard.recording.measure import COLUMNS, loss_columns
from flatguard.recording.recorder import Recorder
from flatguard.recording.trajectory import NARROW
from flatguard.recording.waypoints import Waypoints
from flatguard.runs import store
from flatguard.runs.facts import BlockFailure
from flatguard.runs.spec import derive_seed
from flatguard.targets.datasets import Batch, DataHash, blocks, check_labels
from flatguard.targets.head import HeadSearch
from flatguard.targets.target import model_errors

VERSIONS_OF = (
    "flatguard", "torch", "torchvision", "torchattacks", "pyautoattack", "autoattack",
    "robustbench", "foolbox", "timm", "numpy", "pandas",
)  # fmt: skip


@dataclass(frozen=True)
class CleanPass:
    """What the clean images showed: rows of measurements, and the hash of what was served."""

    values: pd.DataFrame
    sha256: str


def run(
    job: Job, out: Path, command: Sequence[str], observer: Observer, allowance: Allowance
) -> store.Run:
    """Evaluate a job into a new run folder; nothing is written before the clean pass ends.

    Where the allowance is spent after some blocks, they are the run, and it is incomplete.

    Raises:
        RunFolderError: if the folder exists or cannot be written.
        ModelError, DataError: from the clean pass, with nothing written.
        AttackError: from the attack; the blocks done before it and what was recorded of this one
            stay, and the run is incomplete.
        BudgetSpent: before the first block was done.
    """
    store.check_new(out)
    layers = _layers(job)
    clean = _clean_pass(job, observer)
    manifest = _manifest(job, clean, command, allowance)
    store.create(out, manifest)
    try:
        _attack_all(job, out, manifest, clean, layers, observer, allowance)
    except BaseException as error:
        if isinstance(error, BudgetSpent):
            if store.load_run(out).blocks:
                observer.said(f"{error}; what was finished is judged")
                return store.load_run(out)
            error.args = (f"{error} before the first {job.block_size} samples were attacked",)
        if store.keep_recorded(out) and isinstance(error, FlatguardError):
            error.args = (f"{error}; the incomplete run, with what was recorded, is in {out}",)
        raise
    return store.load_run(out)


def _attack_all(
    job: Job,
    out: Path,
    manifest: store.Manifest,
    clean: CleanPass,
    layers: Sequence[Layer],
    observer: Observer,
    allowance: Allowance,
) -> None:
    name, each = f"attack {job.attack.info.name}", job.attack.expected_calls()
    for plan in manifest.blocks:
        # Deeper layers were a stage of their own, so the attack's begins anew after them.
        if plan.start == 0 or (layers and plan.start - job.block_size < job.spec.layer_samples):
            observer.stage(name, job.count - plan.start, each)
        rows = clean.values.iloc[plan.start : plan.stop]
        with store.BlockWriter(out, plan.index) as writer:
            _attack_block(job, plan, rows, layers, observer, allowance, writer)


def _layers(job: Job) -> list[Layer]:
    """The layers that `--layers` asks for, once it is sure that they can be estimated."""
    if job.spec.layers is None:
        return []
    if job.target.head is None:
        raise UsageError(f"--layers needs the model's head: {job.target.head_reason}")
    first = job.dataset.block(0, 1)
    image, label = first.images.to(job.device), first.labels.to(job.device)
    with model_errors(job.target.name, "when --layers differentiates it twice"):
        layers = last_layers(job.target.model, job.target.head, image, job.spec.layers)
        check_layers(job.target.model, layers, image, label)
    return layers


def _clean_pass(job: Job, observer: Observer) -> CleanPass:
    observer.stage("clean images", job.count)
    hashes, frames = DataHash(), []
    for start, batch in blocks(job.dataset, job.count, job.block_size):
        hashes.update(batch)
        check_labels(batch, job.num_classes, job.dataset.name, start)
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
    recorder = _recorder(job, batch, order=Order(keeps=True))
    where = f"on {len(images)} images at once"
    with recorder, torch.no_grad(), seeded(seed, job.device), model_errors(job.target.name, where):
        job.target.model(images.to(job.device))
    others = [column for name in job.spec.losses for column in loss_columns(name)]
    measured: pd.DataFrame = recorder.trajectory()[[*COLUMNS, *others]]
    return measured


def _recorder(job: Job, batch: Batch, **how: Any) -> Recorder:
    images, labels = batch.images.to(job.device), batch.labels.to(job.device)
    known = HeadSearch(job.target.head, job.target.head_reason)
    losses = job.spec.losses
    return Recorder(job.target.model, images, labels, head=known, losses=losses, **how)


def _attack_block(
    job: Job,
    plan: store.BlockPlan,
    clean: pd.DataFrame,
    layers: Sequence[Layer],
    observer: Observer,
    allowance: Allowance,
    writer: store.BlockWriter,
) -> None:
    def called(rows: int) -> None:
        observer.called(rows)
        allowance.spend(rows)

    batch = job.dataset.block(plan.start, plan.stop)
    way = Waypoints(max(0, min(plan.stop, job.spec.layer_samples) - plan.start) if layers else 0)
    recorder = _recorder(
        job,
        batch,
        budget=job.attack.budget,
        order=job.attack.info.order,
        first_sample=plan.start,
        gradients=job.spec.gradients,
        waypoints=way if len(way) else None,
        on_call=called,
        sink=writer.append,
    )
    images, labels = batch.images.to(job.device), batch.labels.to(job.device)
    began = time.perf_counter()
    with _kept_if_it_fails(plan, recorder, writer):
        with recorder:
            perturbed = job.attack.perturb(job.target.model, images, labels, plan.seed, recorder)
        recorder.flush()
        attacked = time.perf_counter()
        adversarial = perturbed.images.cpu()
        samples = _samples(job, plan, batch, adversarial, clean)
        checked = time.perf_counter()
        observer.advanced(plan.stop - plan.start)
        table = None
        if len(way):
            table = _layer_table(
                job, plan, Batch(images, labels), perturbed.images, way, layers, observer
            )
    facts = store.BlockFacts(
        plan=plan,
        calls=recorder.calls,
        sample_forwards=recorder.forwards,
        sample_backwards=recorder.backwards,
        rows_unassigned=recorder.rows_unassigned,
        first_nonfinite=recorder.first_nonfinite,
        segments=tuple(recorder.segments),
        warnings=perturbed.warnings,
    )
    seconds = {"attack": attacked - began, "check": checked - attacked}
    if table is not None:
        seconds["layers"] = time.perf_counter() - checked
    writer.commit(samples, batch.images, adversarial, facts, seconds, table)


def _layer_table(
    job: Job,
    plan: store.BlockPlan,
    batch: Batch,
    adversarial: Tensor,
    way: Waypoints,
    layers: Sequence[Layer],
    observer: Observer,
) -> pd.DataFrame:
    """Deeper layers along the attack; nothing here is recorded, the hooks are gone."""
    head = job.target.head
    assert head is not None, "checked before the attack"
    seed, table = derive_seed(plan.seed, plan.index, "layers"), LayerTable()
    observer.stage("deeper layers", len(way))
    for index in range(len(way)):
        points = points_of(
            plan.start + index, batch.images[index], batch.labels[index], adversarial[index], way,
            index,
        )  # fmt: skip
        measure_points(job.target.model, head, layers, points, seed + 100 * index, table)
        observer.advanced(1)
    return table.frame()


@contextmanager
def _kept_if_it_fails(
    plan: store.BlockPlan, recorder: Recorder, writer: store.BlockWriter
) -> Iterator[None]:
    """What was recorded stays on disk if an attack raises, or a person interrupts it."""
    try:
        yield
    except BaseException as error:
        if recorder.calls:
            # On a full disk neither works, and the first error is the one to be told.
            with suppress(RunFolderError):
                recorder.flush()
            with suppress(RunFolderError):
                writer.keep_failure(_failure(plan, recorder, error))
        raise


def _failure(plan: store.BlockPlan, recorder: Recorder, error: BaseException) -> BlockFailure:
    return BlockFailure(
        plan=plan,
        error=one_line(error),
        budget=isinstance(error, BudgetSpent),
        calls=recorder.calls,
        sample_forwards=recorder.forwards,
        sample_backwards=recorder.backwards,
        rows_unassigned=recorder.rows_unassigned,
        first_nonfinite=recorder.first_nonfinite,
        segments=tuple(recorder.segments),
    )


def _samples(
    job: Job, plan: store.BlockPlan, batch: Batch, adversarial: Tensor, clean: pd.DataFrame
) -> pd.DataFrame:
    """A row per sample; what is robust is measured here, never taken from the attack."""
    after = _measured(job, batch, adversarial, derive_seed(job.spec.seed, plan.index, "check"))
    table = pd.DataFrame({"sample": range(plan.start, plan.stop), "label": batch.labels.numpy()})
    for name in after.columns:
        if name not in ("linf", "l2"):
            table[f"clean_{name}"] = clean[name].array
            table[f"adv_{name}"] = after[name].array
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


def _manifest(
    job: Job, clean: CleanPass, command: Sequence[str], allowance: Allowance
) -> store.Manifest:
    head = job.target.head
    shape = tuple(job.dataset.block(0, 1).images.shape[1:])
    return store.Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=tuple(command),
        spec=job.spec,
        limits=allowance.limits,
        attack_args=job.attack.effective_args(),
        target=store.TargetFacts(
            name=job.target.name,
            source=job.target.source,
            weights_sha256=job.target.weights_sha256,
            num_classes=job.num_classes,
            head=head.name if head else None,
            head_scale=head.scale if head else None,
            head_reason=job.target.head_reason,
            log_weight_norm_squared=head.log_weight_norm_squared() if head else None,
            notes=job.target.notes,
        ),
        data=store.DataFacts(
            name=job.dataset.name,
            size=len(job.dataset),
            sha256=clean.sha256,
            image_shape=shape,
            classes=job.dataset.classes,
        ),
        blocks=tuple(_plan(job)),
        versions=versions(),
        device=store.device_facts(job.device),
    )


def _plan(job: Job) -> list[store.BlockPlan]:
    return [
        store.BlockPlan(
            index=index,
            start=start,
            stop=min(start + job.block_size, job.count),
            seed=derive_seed(job.spec.seed, index, job.spec.attack),
        )
        for index, start in enumerate(range(0, job.count, job.block_size))
    ]


def versions() -> dict[str, str]:
    """Of flatguard and everything that may change a run's numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
