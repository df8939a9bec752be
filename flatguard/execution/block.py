"""One block of samples: attack it, find the samples that fail, commit.

A block needs nothing but the job and the manifest, so that any process may do it, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.data.dataset import Batch
from flatguard.data.hashing import DataHash
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
from flatguard.execution.attempt import AttackAttempt, Done, counted
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import (
    DATA_FROM_PYTHON,
    FROM_PYTHON,
    EvaluationContext,
    Origin,
    resolve,
)
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.spending import record_spent
from flatguard.recording.layers import Layer, check_layers, last_layers
from flatguard.runs.facts import BlockFailure, BlockPlan, SampleFailure
from flatguard.runs.store import Run
from flatguard.runs.writing import BlockWriter
from flatguard.targets.target import model_errors


@dataclass(frozen=True)
class Bench:
    """What every block of a run needs: the job, the run that it fills, and its deeper layers."""

    context: EvaluationContext
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
            raise UsageError(f"{run.storage}: its model came from Python; give it with model=...")
        if origin.dataset is None and run.manifest.data.name == DATA_FROM_PYTHON:
            raise UsageError(f"{run.storage}: its data came from Python; give it with data=...")
        context = resolve(run.request, origin.target, origin.dataset)
        if context.target.weights_sha256 != facts.weights_sha256:
            raise UsageError(f"{facts.name} has other weights now than when {run.storage} was made")
        return cls(context, run, asked_layers(context))


def asked_layers(context: EvaluationContext) -> list[Layer]:
    """The layers that `--layers` asks for, once it is sure that they can be estimated."""
    if context.request.layers is None:
        return []
    if context.target.head is None:
        raise UsageError(f"--layers needs the model's head: {context.target.head_reason}")
    first = context.dataset.block(0, 1)
    with model_errors(context.target.name, "when --layers differentiates it twice"):
        image, label = first.images.to(context.device), first.labels.to(context.device)
        layers = last_layers(
            context.target.model, context.target.head, image, context.request.layers
        )
        check_layers(context.target.model, layers, image, label)
    return layers


def attack_block(
    bench: Bench,
    plan: BlockPlan,
    max_failures: int,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> tuple[SampleFailure, ...]:
    """Attack one block and commit it.

    A sample on which the model raises, or gives no finite logits when clean, is found by halving
    the block. It is marked as failed, and the block is attacked again without it. Where all of
    several samples fail, it is not the samples.

    Args:
        bench: the job and its run.
        plan: which block.
        max_failures: so many samples may fail; beyond, the first error is raised.
        progress: receives progress updates.
        compute_budget: what the attack may spend.

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
    with bench.run.storage.working_on(plan.index):
        try:
            return _attacked(bench, plan, batch, max_failures, progress, compute_budget)
        finally:
            record_spent(bench.run, compute_budget)
            bench.run.storage.push()


def _attacked(
    bench: Bench,
    plan: BlockPlan,
    batch: Batch,
    max_failures: int,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> tuple[SampleFailure, ...]:
    failed: dict[int, str] = {}
    with BlockWriter(bench.run.path, plan.index) as writer:
        while True:
            rows = np.array([i for i in range(len(batch)) if i not in failed], np.int64)
            trial = AttackAttempt(
                bench.context, plan, batch, rows, progress, compute_budget, bench.layers
            )
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
                with _kept_if_it_fails(trial, writer, 0):
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
            progress.log(f"sample {failure.sample} failed: {failure.error}")
        facts = done.facts.model_copy(
            update={"failures": failures, "run": bench.run.manifest.identity}
        )
        samples, adversarial = _with_failed(done, batch, plan, rows)
        writer.commit(samples, batch.images, adversarial, facts, done.seconds, done.layers)
    return failures


def _served(bench: Bench, plan: BlockPlan) -> Batch:
    batch, kept = bench.context.dataset.block(plan.start, plan.stop), bench.run.manifest.data.blocks
    hashes = DataHash()
    hashes.update(batch)
    if kept and kept[plan.index] != hashes.hexdigest():
        raise DataError(
            f"{bench.run.manifest.data.name} serves other images now than for {bench.run.storage}: "
            f"block {plan.index} differs"
        )
    return batch


def _culprits(trial: AttackAttempt, error: Exception, most: int) -> dict[int, str]:
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
            except OutOfMemory:
                raise  # no sample's fault
            except (AttackError, ModelError) as again:
                waiting.append((half, again))
    return found


@contextmanager
def _kept_if_it_fails(trial: AttackAttempt, writer: BlockWriter, left: int) -> Iterator[None]:
    """What was recorded stays on disk if an attack raises for good, or a person interrupts it.

    So it does where that happens while the samples are searched that the attack failed on.
    """
    try:
        yield
    except BaseException as error:
        final = left <= 0 or not isinstance(error, (AttackError, ModelError))
        if final or isinstance(error, OutOfMemory):
            _keep(trial, writer, error)
        raise


def _keep(trial: AttackAttempt, writer: BlockWriter, error: BaseException) -> None:
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
        **counted(recorder),
    )
    with suppress(RunFolderError):
        writer.keep_failure(failure)


def _with_failed(
    done: Done, batch: Batch, plan: BlockPlan, rows: np.ndarray
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
