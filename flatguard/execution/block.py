"""One block of samples: attack it, find the samples on which the model raises, and commit it.

A block depends only on the context and the manifest. Any process can attack it, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
    one_line,
)
from flatguard.execution.attempt import AttackAttempt, AttemptResult, recorder_counts
from flatguard.execution.compute_budget import ComputeBudget, record_spent
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.runs.facts import BlockFailure, BlockPlan, SampleFailure
from flatguard.runs.run import Run
from flatguard.runs.writing import BlockWriter


def attack_block(
    context: EvaluationContext,
    run: Run,
    plan: BlockPlan,
    max_failures: int,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> tuple[SampleFailure, ...]:
    """Attack one block and commit it.

    A sample fails if the model raises on it or gives no finite logits for its clean image. Halving
    the block finds such samples. They are marked as failed, and the block is attacked again
    without them. If all of several samples fail, the error is not the samples' and is raised.

    Args:
        context: the model, the data and the attack.
        run: the run that the block belongs to.
        plan: which block.
        max_failures: how many samples may fail; beyond that, the first error is raised.
        progress: receives progress updates.
        compute_budget: what the attack may spend.

    Returns:
        The samples that failed.

    Raises:
        ModelError, AttackError: too many samples failed, or all; what was recorded is kept as a
            failure.
        BudgetSpent: the compute budget is spent; what was recorded is kept as a failure.
        DataError: the data set has other images now than when the run was planned.
        RunFolderError: the folder cannot be written.
    """
    batch = _load_batch(context, run, plan)
    with run.storage.working_on(plan.index):
        try:
            return _attack_and_commit(
                context, run, plan, batch, max_failures, progress, compute_budget
            )
        finally:
            record_spent(run, compute_budget)
            run.storage.push()


def _attack_and_commit(
    context: EvaluationContext,
    run: Run,
    plan: BlockPlan,
    batch: Batch,
    max_failures: int,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> tuple[SampleFailure, ...]:
    failed: dict[int, str] = {}
    with BlockWriter(run.path, plan.index) as writer:
        while True:
            rows = np.array([i for i in range(len(batch)) if i not in failed], np.int64)
            attempt = AttackAttempt(context, plan, batch, rows, progress, compute_budget)
            if not len(rows):
                result = attempt.empty()
                break
            try:
                with _recording_kept_on_error(attempt, writer, max_failures - len(failed)):
                    result = attempt.run(writer.append)
                break
            except (AttackError, ModelError) as error:
                left = max_failures - len(failed)
                if left <= 0 or isinstance(error, OutOfMemory):
                    raise
                with _recording_kept_on_error(attempt, writer, 0):
                    failing = _failing_rows(attempt, error, left)
                all_of_several = len(failing) == len(rows) > 1
                if not failing or len(failing) > left or all_of_several:
                    _keep_recording(attempt, writer, error)
                    raise
                failed |= failing
                writer.begin_again()
        failures = tuple(
            SampleFailure(sample=plan.start + row, error=text)
            for row, text in sorted(failed.items())
        )
        for failure in failures:
            progress.log(f"sample {failure.sample} failed: {failure.error}")
        facts = result.facts.model_copy(update={"failures": failures, "run": run.manifest.identity})
        samples, adversarial = _with_failed(result, batch, plan, rows)
        writer.keep_mistakes(result.mistakes)
        writer.commit(samples, batch.images, adversarial, facts, result.seconds, result.layers)
    return failures


def _load_batch(context: EvaluationContext, run: Run, plan: BlockPlan) -> Batch:
    batch, kept = context.dataset.block(plan.start, plan.stop), run.manifest.data.blocks
    hashes = DataHash()
    hashes.update(batch)
    if kept[plan.index] != hashes.hexdigest():
        raise DataError(
            f"{run.manifest.data.name} has other images now than for {run.storage}: "
            f"block {plan.index} differs"
        )
    return batch


def _failing_rows(attempt: AttackAttempt, error: Exception, most: int) -> dict[int, str]:
    """The rows that fail on their own, found by halving; the search stops beyond `most` of them.

    A failure that needs several rows at once, or that is not repeatable, belongs to no row.
    """
    found: dict[int, str] = {}
    waiting = [(attempt.rows, error)]
    while waiting and len(found) <= most:
        rows, raised = waiting.pop()
        if len(rows) == 1:
            found[int(rows[0])] = one_line(raised)
            continue
        for half in np.array_split(rows, 2):
            try:
                attempt.of(half).run(lambda _: None)
            except OutOfMemory:
                raise  # not caused by a sample
            except (AttackError, ModelError) as again:
                waiting.append((half, again))
    return found


@contextmanager
def _recording_kept_on_error(
    attempt: AttackAttempt, writer: BlockWriter, left: int
) -> Iterator[None]:
    """Keep what was recorded if the attack raises finally or is interrupted.

    `left` is how many samples may still fail; with 0, every error is final.
    """
    try:
        yield
    except BaseException as error:
        final = left <= 0 or not isinstance(error, (AttackError, ModelError))
        if final or isinstance(error, OutOfMemory):
            _keep_recording(attempt, writer, error)
        raise


def _keep_recording(attempt: AttackAttempt, writer: BlockWriter, error: BaseException) -> None:
    recorder = attempt.recorder
    if recorder is None or not recorder.calls:
        return
    # On a full disk neither works; the first error is the one that is raised.
    with suppress(RunFolderError):
        recorder.flush()
    failure = BlockFailure(
        plan=attempt.plan,
        error=one_line(error),
        budget=isinstance(error, BudgetSpent),
        **recorder_counts(recorder),
    )
    with suppress(RunFolderError):
        writer.keep_failure(failure)


def _with_failed(
    result: AttemptResult, batch: Batch, plan: BlockPlan, rows: np.ndarray
) -> tuple[pd.DataFrame, Tensor]:
    """Add the failed samples: their measurements are missing, and they count as not robust."""
    if len(rows) == len(batch):
        return result.samples, result.adversarial
    table = result.samples.set_index(pd.Index(rows)).reindex(range(len(batch)))
    table["sample"] = np.arange(plan.start, plan.stop)
    table["label"] = batch.labels.numpy()
    table["failed"] = ~table.index.isin(rows)
    for name in ("admissible", "clean_correct", "robust"):
        table[name] = table[name].eq(True)
    predictions = ("clean_prediction", "adv_prediction", "search_prediction")
    whole = {name: "Int32" for name in predictions if name in table}
    types = {str(name): kind for name, kind in result.samples.dtypes.items()}
    same = {name: kind for name, kind in types.items() if name not in whole}
    adversarial = batch.images.clone()
    adversarial[torch.from_numpy(rows)] = result.adversarial
    return table.astype({**same, **whole}).reset_index(drop=True), adversarial
