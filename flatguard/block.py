"""One block of samples: look at it clean, attack it, measure again, commit.

A block needs nothing but the job and the manifest, so that any process may do it, in any order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.allowance import Allowance
from flatguard.attacks.monitor import Order
from flatguard.errors import (
    AttackError,
    BudgetSpent,
    DataError,
    ModelError,
    OutOfMemory,
    RunFolderError,
    UsageError,
    one_line,
)
from flatguard.geometry.budget import Budget, distance
from flatguard.job import DATA_FROM_PYTHON, FROM_PYTHON, Job, Origin, resolve
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
from flatguard.runs.facts import BlockFacts, BlockFailure, BlockPlan, SampleFailure
from flatguard.runs.spec import derive_seed
from flatguard.runs.store import Run
from flatguard.runs.writing import BlockWriter
from flatguard.targets.datasets import Batch, DataHash
from flatguard.targets.head import HeadSearch
from flatguard.targets.target import model_errors


@dataclass(frozen=True)
class Bench:
    """What every block of a run needs: the job, the run that it fills, and its deeper layers."""

    job: Job
    run: Run
    layers: Sequence[Layer]

    @classmethod
    def open(cls, run: Run, origin: Origin) -> Bench:
        """Load what a run names again.

        Raises:
            UsageError: the model has other weights now, or came from Python and is not here.
        """
        facts = run.manifest.target
        if origin.target is None and facts.source == FROM_PYTHON:
            raise UsageError(f"{run.place}: its model came from Python; give it with model=...")
        if origin.dataset is None and run.manifest.data.name == DATA_FROM_PYTHON:
            raise UsageError(f"{run.place}: its data came from Python; give it with data=...")
        job = resolve(run.spec, origin.target, origin.dataset)
        if job.target.weights_sha256 != facts.weights_sha256:
            raise UsageError(f"{facts.name} has other weights now than when {run.place} was made")
        return cls(job, run, asked_layers(job))


def asked_layers(job: Job) -> list[Layer]:
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


def attack_block(
    bench: Bench, plan: BlockPlan, max_failures: int, observer: Observer, allowance: Allowance
) -> tuple[SampleFailure, ...]:
    """Attack one block and commit it.

    A sample on which the model raises, or gives no finite logits when clean, is found by halving
    the block. It is marked as failed, and the block is attacked again without it. Where all of
    several samples fail, it is not the samples.

    Args:
        bench: the job and its run.
        plan: which block.
        max_failures: so many samples may fail; beyond, the first error is raised.
        observer: is told of the progress.
        allowance: what the attack may spend.

    Returns:
        The samples that failed.

    Raises:
        ModelError, AttackError: too many samples failed, or all; what was recorded is kept as a
            failure.
        BudgetSpent: likewise, the allowance is spent.
        DataError: the data set serves other images now than when the run was planned.
        RunFolderError: the folder cannot be written.
    """
    batch = _served(bench, plan)
    with bench.run.place.working_on(plan.index):
        try:
            return _attacked(bench, plan, batch, max_failures, observer, allowance)
        finally:
            bench.run.place.push()


def _attacked(
    bench: Bench,
    plan: BlockPlan,
    batch: Batch,
    max_failures: int,
    observer: Observer,
    allowance: Allowance,
) -> tuple[SampleFailure, ...]:
    failed: dict[int, str] = {}
    with BlockWriter(bench.run.path, plan.index) as writer:
        while True:
            rows = np.array([i for i in range(len(batch)) if i not in failed], np.int64)
            trial = _Trial(bench.job, plan, batch, rows, observer, allowance, bench.layers)
            if not len(rows):
                done = trial.nothing()
                break
            try:
                with _kept_if_it_fails(trial, writer, max_failures - len(failed)):
                    done = trial.run(writer.append)
                break
            except (AttackError, ModelError) as error:
                left = max_failures - len(failed)
                if left <= 0 or isinstance(error, OutOfMemory):
                    raise
                culprits = _culprits(trial, error, left)
                all_of_several = len(culprits) == len(rows) > 1
                if not culprits or len(culprits) > left or all_of_several:
                    _keep(trial, writer, error)
                    raise
                failed |= culprits
                writer.begin_again()
        failures = tuple(
            SampleFailure(sample=plan.start + row, error=text)
            for row, text in sorted(failed.items())
        )
        for failure in failures:
            observer.said(f"sample {failure.sample} failed: {failure.error}")
        facts = done.facts.model_copy(
            update={"failures": failures, "run": bench.run.manifest.identity}
        )
        samples, adversarial = _with_failed(done, batch, plan, rows)
        writer.commit(samples, batch.images, adversarial, facts, done.seconds, done.layers)
    return failures


def _served(bench: Bench, plan: BlockPlan) -> Batch:
    batch, kept = bench.job.dataset.block(plan.start, plan.stop), bench.run.manifest.data.blocks
    hashes = DataHash()
    hashes.update(batch)
    if kept and kept[plan.index] != hashes.hexdigest():
        raise DataError(
            f"{bench.run.manifest.data.name} serves other images now than for {bench.run.place}: "
            f"block {plan.index} differs"
        )
    return batch


@dataclass(frozen=True)
class _Done:
    """What came of a trial that raised nothing."""

    samples: pd.DataFrame
    adversarial: Tensor
    facts: BlockFacts
    seconds: dict[str, float]
    layers: pd.DataFrame | None


@dataclass
class _Trial:
    """The whole attack on some rows of a block."""

    job: Job
    plan: BlockPlan
    batch: Batch
    rows: np.ndarray
    observer: Observer
    allowance: Allowance
    layers: Sequence[Layer]
    recorder: Recorder | None = field(default=None, init=False)

    @property
    def part(self) -> Batch:
        """The rows alone."""
        if len(self.rows) == len(self.batch):
            return self.batch
        index = torch.from_numpy(self.rows)
        return Batch(self.batch.images[index].contiguous(), self.batch.labels[index])

    def of(self, rows: np.ndarray) -> _Trial:
        """The same on other rows."""
        return _Trial(
            self.job, self.plan, self.batch, rows, self.observer, self.allowance, self.layers
        )

    def run(self, sink: Callable[[pd.DataFrame], None]) -> _Done:
        """Clean look, attack, fresh look; rows of the trajectory go to `sink` as they come."""
        job, plan, part, numbers = self.job, self.plan, self.part, self.rows + self.plan.start
        began = time.perf_counter()
        clean = self._clean_look(part)
        way = Waypoints(int((numbers < job.spec.layer_samples).sum()) if self.layers else 0)
        self.recorder = recorder = _recorder(
            job,
            part,
            budget=job.attack.budget,
            order=job.attack.info.order,
            gradients=job.spec.gradients,
            waypoints=way if len(way) else None,
            on_call=partial(_called, self.observer, self.allowance),
            sink=lambda rows: sink(_numbered(rows, numbers)),
        )
        images, labels = part.images.to(job.device), part.labels.to(job.device)
        attacking = time.perf_counter()
        with recorder:
            perturbed = job.attack.perturb(job.target.model, images, labels, plan.seed, recorder)
        recorder.flush()
        attacked = time.perf_counter()
        adversarial = perturbed.images.cpu()
        after = measured(job, part, adversarial, derive_seed(job.spec.seed, plan.index, "check"))
        samples = _samples(job, part, numbers, adversarial, clean, after)
        checked = time.perf_counter()
        seconds = {
            "clean": attacking - began, "attack": attacked - attacking, "check": checked - attacked,
        }  # fmt: skip
        table = None
        if len(way):
            table = self._layer_table(Batch(images, labels), perturbed.images, way, numbers)
            seconds["layers"] = time.perf_counter() - checked
        facts = BlockFacts(
            plan=plan,
            calls=recorder.calls,
            sample_forwards=recorder.forwards,
            sample_backwards=recorder.backwards,
            rows_unassigned=recorder.rows_unassigned,
            first_nonfinite=recorder.first_nonfinite,
            segments=tuple(recorder.segments),
            warnings=perturbed.warnings,
        )
        return _Done(samples, adversarial, facts, seconds, table)

    def nothing(self) -> _Done:
        """What came of it where every row failed before."""
        nobody = _recorder(self.job, self.batch).trajectory()[_measured_columns(self.job)]
        part = Batch(self.batch.images[:0], self.batch.labels[:0])
        samples = _samples(self.job, part, self.rows, part.images, nobody, nobody)
        facts = BlockFacts(
            plan=self.plan, calls=0, sample_forwards=0, sample_backwards=0, rows_unassigned=0,
            first_nonfinite=None, segments=(), warnings=(),
        )  # fmt: skip
        return _Done(samples, part.images, facts, {"clean": 0.0, "attack": 0.0, "check": 0.0}, None)

    def _clean_look(self, part: Batch) -> pd.DataFrame:
        job = self.job
        seed = derive_seed(job.spec.seed, self.plan.index, "clean")
        clean = measured(job, part, part.images, seed)
        bad = clean["loss"].isna().to_numpy()
        if bad.any():
            first = self.plan.start + int(self.rows[bad.argmax()])
            raise ModelError(
                f"{job.target.name} gives NaN or infinite logits for {int(bad.sum())} of the clean "
                f"images, the first of them sample {first}"
            )
        return clean

    def _layer_table(
        self, batch: Batch, adversarial: Tensor, way: Waypoints, numbers: np.ndarray
    ) -> pd.DataFrame:
        """Deeper layers along the attack; nothing here is recorded, the hooks are gone."""
        job, head = self.job, self.job.target.head
        assert head is not None, "checked before the attack"
        seed, table = derive_seed(self.plan.seed, self.plan.index, "layers"), LayerTable()
        self.observer.stage("deeper layers", len(way))
        for index in range(len(way)):
            points = points_of(
                int(numbers[index]), batch.images[index], batch.labels[index], adversarial[index],
                way, index,
            )  # fmt: skip
            measure_points(job.target.model, head, self.layers, points, seed + 100 * index, table)
            self.observer.advanced(1)
        return table.frame()


def _called(observer: Observer, allowance: Allowance, rows: int) -> None:
    """No method of a trial: it and its recorder would hold each other, and the images, for long."""
    observer.called(rows)
    allowance.spend(rows)


def _culprits(trial: _Trial, error: Exception, most: int) -> dict[int, str]:
    """The rows that fail alone, found by halving; the search ends beyond `most` of them.

    A failure that needs several rows at once, or that comes and goes, is nobody's.
    """
    found: dict[int, str] = {}
    waiting = [(trial.rows, error)]
    while waiting and len(found) <= most:
        rows, raised = waiting.pop()
        if len(rows) == 1:
            found[int(rows[0])] = one_line(raised)
            continue
        for half in np.array_split(rows, 2):
            try:
                trial.of(half).run(lambda _: None)
            except (AttackError, ModelError) as again:
                waiting.append((half, again))
    return found


def measured(job: Job, batch: Batch, images: Tensor, seed: int) -> pd.DataFrame:
    """One fresh forward pass over `images`, measured against the clean batch."""
    recorder = _recorder(job, batch, order=Order(keeps=True))
    where = f"on {len(images)} images at once"
    with recorder, torch.no_grad(), seeded(seed, job.device), model_errors(job.target.name, where):
        job.target.model(images.to(job.device))
    found: pd.DataFrame = recorder.trajectory()[_measured_columns(job)]
    return found


def _measured_columns(job: Job) -> list[str]:
    return [*COLUMNS, *(column for name in job.spec.losses for column in loss_columns(name))]


def _recorder(job: Job, batch: Batch, **how: Any) -> Recorder:
    images, labels = batch.images.to(job.device), batch.labels.to(job.device)
    known = HeadSearch(job.target.head, job.target.head_reason)
    losses = job.spec.losses
    return Recorder(job.target.model, images, labels, head=known, losses=losses, **how)


def _numbered(rows: pd.DataFrame, numbers: np.ndarray) -> pd.DataFrame:
    """Rows of a batch with the numbers that its samples have in the data set."""
    known = rows["sample"].notna().to_numpy()
    sample = np.zeros(len(rows), dtype=np.int32)
    sample[known] = numbers[rows.loc[known, "sample"].to_numpy(dtype="int64")]
    numbered: pd.DataFrame = rows.assign(sample=pd.arrays.IntegerArray(sample, ~known))
    return numbered


@contextmanager
def _kept_if_it_fails(trial: _Trial, writer: BlockWriter, left: int) -> Iterator[None]:
    """What was recorded stays on disk if an attack raises for good, or a person interrupts it."""
    try:
        yield
    except BaseException as error:
        final = left <= 0 or not isinstance(error, (AttackError, ModelError))
        if final or isinstance(error, OutOfMemory):
            _keep(trial, writer, error)
        raise


def _keep(trial: _Trial, writer: BlockWriter, error: BaseException) -> None:
    recorder = trial.recorder
    if recorder is None or not recorder.calls:
        return
    # On a full disk neither works, and the first error is the one to be told.
    with suppress(RunFolderError):
        recorder.flush()
    failure = BlockFailure(
        plan=trial.plan,
        error=one_line(error),
        budget=isinstance(error, BudgetSpent),
        calls=recorder.calls,
        sample_forwards=recorder.forwards,
        sample_backwards=recorder.backwards,
        rows_unassigned=recorder.rows_unassigned,
        first_nonfinite=recorder.first_nonfinite,
        segments=tuple(recorder.segments),
    )
    with suppress(RunFolderError):
        writer.keep_failure(failure)


def _samples(
    job: Job,
    batch: Batch,
    numbers: np.ndarray,
    adversarial: Tensor,
    clean: pd.DataFrame,
    after: pd.DataFrame,
) -> pd.DataFrame:
    """A row per sample; what is robust is decided here, never taken from the attack."""
    table = pd.DataFrame({"sample": numbers, "label": batch.labels.numpy()})
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
    table["failed"] = False
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


def _with_failed(
    done: _Done, batch: Batch, plan: BlockPlan, rows: np.ndarray
) -> tuple[pd.DataFrame, Tensor]:
    """The block's samples with those that failed: nothing of them is measured, none is right."""
    if len(rows) == len(batch):
        return done.samples, done.adversarial
    table = done.samples.set_index(pd.Index(rows)).reindex(range(len(batch)))
    table["sample"] = np.arange(plan.start, plan.stop)
    table["label"] = batch.labels.numpy()
    table["failed"] = ~table.index.isin(rows)
    for name in ("admissible", "clean_correct", "robust"):
        table[name] = table[name].eq(True)
    whole = {f"{which}_prediction": "Int32" for which in ("clean", "adv")}
    types = {str(name): kind for name, kind in done.samples.dtypes.items()}
    same = {name: kind for name, kind in types.items() if name not in whole}
    adversarial = batch.images.clone()
    adversarial[torch.from_numpy(rows)] = done.adversarial
    return table.astype({**same, **whole}).reset_index(drop=True), adversarial
