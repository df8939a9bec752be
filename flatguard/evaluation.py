"""`evaluate()`, `resume()` and `audit()`: from a request or a folder to a run with its verdict.

What the command line, the pytest plugin and notebooks call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.checks.gathering.plan import probe, surrogates_of
from flatguard.checks.verdict import Verdict, tolerance_of
from flatguard.detection.flagged import Opened
from flatguard.detection.kept import KeptDetector
from flatguard.environment.system import quoted
from flatguard.errors import OutOfMemory, RunFolderError, UsageError
from flatguard.execution import context
from flatguard.execution.arguments import (
    caller_kept,
    names_of,
    origin_of,
    reopened,
    request_of,
)
from flatguard.execution.block import Bench, asked_layers
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Executor, InProcess, computing_with
from flatguard.execution.plan import Shard, fill, plan, same_software
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.execution.spending import load_spent
from flatguard.reporting.derived import derive, seconds_of
from flatguard.request import NO_LIMITS, EvaluationRequest
from flatguard.runs import store, writing
from flatguard.runs.naming import default_folder
from flatguard.runs.storage import RunStorage, open_storage
from flatguard.targets.target import Target


def evaluate(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    out: str | Path | None = None,
    surrogates: Sequence[str | Target] = (),
    detector: str | Path | KeptDetector | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    progress: ProgressReporter | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> store.Run:
    """Attack a model, record it, measure again, judge, and keep everything in a run folder.

    Args:
        model: a name or path as on the command line, a module that takes images in [0, 1],
            or a Target.
        attack: `apgd-ce`, `torchattacks:PGD`, `foolbox:LinfPGD`, ...
        data: a pair of images in [0, 1] and labels, or a data set's name; None means the
            model's own.
        out: the run folder, or an address such as `s3://bucket/run`; None names a new one under
            `reports/`.
        surrogates: models whose adversarial examples are shown to this one, by name.
        detector: a fitted detector, or its file, that flags the samples; `run.summary["detection"]`
            has what it flags. Another model's is refused before the attack.
        executor: who attacks: `flatguard.execution.executors.InProcess()`, which is the default,
            `Processes(4)` or `Ray("auto")`.
        shard: `2/8` attacks the second of eight parts of the blocks and judges nothing;
            `flatguard.merge` puts the parts together.
        progress: receives progress updates; None is silent.
        command: what the manifest says was typed.
        **options: the fields of `EvaluationRequest`, by name: `eps="8/255"`, `attack_args`,
            `n_examples`, `batch_size`, `device`, `seed`, `checks`, `tolerance`, ...

    Returns:
        The run; `run.summary` holds the numbers, `run.samples` and `run.trajectory` the tables.
        `flatguard.audit(run)` gives its verdict.

    Raises:
        FlatguardError: one of its kinds, with one line that says what to do; `BudgetSpent` where
            a budget ended before the first block of samples was attacked.

    Example:
        >>> run = flatguard.evaluate("demo", "torchattacks:FGSM")  # doctest: +SKIP
        >>> run.summary["robust_accuracy"], run.summary["verdict"]  # doctest: +SKIP
        (0.25, 'overestimated')
    """
    progress, executor = progress or Silent(), executor or InProcess()
    part = None if shard is None else Shard.parse(shard)
    opened = None if detector is None else Opened.of(detector)
    with ExitStack() as stack:
        stack.enter_context(caller_kept(model, *surrogates))
        origin = origin_of(model, data)
        options["surrogates"] = names_of(surrogates)
        options["detector"] = None if isinstance(detector, KeptDetector) else detector
        request = request_of(origin.target or model, attack, data, options)
        began, compute_budget = time.perf_counter(), ComputeBudget(request.limits)
        _check_executor(executor, compute_budget)
        storage = open_storage(out if out is not None else default_folder(request))
        writing.check_new(storage)
        stack.enter_context(computing_with(request.threads or executor.threads))
        stack.enter_context(_going_on_later(storage, progress))
        resolved = context.resolve(request, origin.target, origin.dataset)
        if opened is not None:
            opened.kept.check_target(resolved.target)
        others = surrogates_of(surrogates, request.checks, resolved)
        _introduce(resolved, progress)
        bench = _attacked(resolved, storage, command, executor, progress, compute_budget, part)
        if part is not None:
            return bench.run
        return _finished(bench, others, progress, compute_budget, began, opened)


def _attacked(
    resolved: context.EvaluationContext,
    storage: RunStorage,
    command: Sequence[str],
    executor: Executor,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
    part: Shard | None,
) -> Bench:
    """A new run whose blocks are attacked, in batches that fit the device's memory."""
    while True:
        layers = asked_layers(resolved)
        bench = Bench(resolved, plan(resolved, storage, command, progress), layers)
        try:
            return replace(bench, run=fill(bench, executor, progress, compute_budget, part))
        except BaseException as error:
            smaller = _halved(bench, error)
            if smaller is None:
                writing.drop_if_nothing_was_recorded(bench.run)
                raise
        # Only here: an error that is being handled holds the memory of the pass that it ended.
        progress.log(
            f"batches of {resolved.block_size} do not fit the memory; this is another run, with "
            f"batches of {smaller.batch_size}"
        )
        storage.drop()
        origin = resolved.origin
        resolved = context.resolve(smaller, origin.target, origin.dataset)


def _halved(bench: Bench, error: BaseException) -> EvaluationRequest | None:
    """The request with half the batch, where memory ran out before a whole batch was committed.

    Attacks draw their random starts for a whole batch, so that smaller ones are another run.
    """
    size = bench.context.block_size
    if size == 1 or not isinstance(error, OutOfMemory):
        return None
    done = [block.plan for block in store.load_run(bench.run.storage).blocks]
    if any(plan.stop - plan.start == size for plan in done):
        return None
    return bench.context.request.model_copy(update={"batch_size": size // 2})


def resume(
    run: store.Run | str | Path,
    *,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    surrogates: Sequence[str | Target] | None = None,
    max_failures: int | None = None,
    detector: str | Path | KeptDetector | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    allow_code: bool = False,
    progress: ProgressReporter | None = None,
) -> store.Run:
    """Do what a run lacks, blocks and probes, and nothing twice; then judge it.

    The evidence is the same, byte for byte, as if the run had never been interrupted.

    Args:
        run: the run, or its folder.
        model: the run's model, where it came from Python.
        data: the run's images and labels, where they came from Python.
        surrogates: those of the run, where they came from Python.
        max_failures: in place of the run's own.
        detector: as for `evaluate`; what it flags is no evidence, and is not in the folder before
            the run has ended.
        executor: who attacks; it may be another than before.
        shard: as for `evaluate`.
        allow_code: run the code that the run's request names, such as its architecture.
        progress: receives progress updates; None is silent.

    Raises:
        UntrustedCodeError: the run's request names code, and nobody allowed it.
        UsageError: weights, data, versions or device are not those that the run began with.
        RunFolderError: no such run, or it is damaged.
    """
    progress, executor = progress or Silent(), executor or InProcess()
    part = None if shard is None else Shard.parse(shard)
    found = store.load_run(run.storage if isinstance(run, store.Run) else run)
    if model is None and not allow_code:
        found.request.refuse_code(str(found.storage))
    with _mendable():
        found.verify()
        spent = load_spent(found)
    same_software(found)
    opened = None if detector is None else Opened.of(detector)
    if opened is not None:
        opened.kept.check_run(found.manifest.target)
    manifest, began = found.manifest, time.perf_counter()
    compute_budget = ComputeBudget(found.request.limits, spent)
    _check_executor(executor, compute_budget)
    threads = manifest.device.get("threads", torch.get_num_threads())
    with (
        caller_kept(model, *(surrogates or ())),
        computing_with(threads),
        _going_on_later(found.storage, progress),
    ):
        bench = reopened(found, model, data)
        named = found.request.surrogates if surrogates is None else surrogates
        others = surrogates_of(named, found.request.checks, bench.context)
        _introduce(bench.context, progress)
        done, planned = len(found.blocks), len(manifest.blocks)
        progress.log(f"{done} of {planned} blocks were done before")
        found = fill(bench, executor, progress, compute_budget, part, max_failures)
        if part is not None:
            return found
        return _finished(replace(bench, run=found), others, progress, compute_budget, began, opened)


def _finished(
    bench: Bench,
    others: Sequence[Target],
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
    began: float,
    opened: Opened | None,
) -> store.Run:
    """Probe what was attacked, judge it, and draw the report."""
    run = bench.run
    checks = run.request.checks
    if checks != "none" and run.complete:
        probe(bench.context, run, checks, others, progress, compute_budget)
    derive(run, tolerance_of(run), time.perf_counter() - began, opened, progress)
    return run


def _introduce(resolved: context.EvaluationContext, progress: ProgressReporter) -> None:
    progress.log(context.describe(resolved))
    for note in resolved.target.notes:
        progress.log(note)
    if resolved.target.head is None:
        progress.log(f"κ is not measured: {resolved.target.head_reason}")


@contextmanager
def _going_on_later(storage: RunStorage, progress: ProgressReporter) -> Iterator[None]:
    """Says how to take up a run that a person interrupts, where there is one by then."""
    try:
        yield
    except KeyboardInterrupt:
        if storage.path.is_dir():
            progress.log(f"flatguard evaluate --resume {quoted(storage)} goes on")
        raise


@contextmanager
def _mendable() -> Iterator[None]:
    """Says what to do about a block or a probe that is damaged."""
    try:
        yield
    except RunFolderError as error:
        raise RunFolderError(
            f"{error}; remove the folder that it is in, and --resume does that part again"
        ) from error


def _check_executor(executor: Executor, compute_budget: ComputeBudget) -> None:
    if compute_budget.limits != NO_LIMITS and not isinstance(executor, InProcess):
        raise UsageError(
            "--max-forwards and --max-minutes are counted in one process; leave out --workers and "
            "--executor"
        )


def audit(
    run: store.Run | str | Path,
    *,
    checks: str = "none",
    surrogates: Sequence[str | Target] = (),
    tolerance: float | None = None,
    detector: str | Path | KeptDetector | None = None,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    allow_code: bool = False,
    progress: ProgressReporter | None = None,
) -> Verdict:
    """Judge a run again from its folder, without the model; or run the probes that are missing.

    Args:
        run: the run, or its folder.
        checks: `none` reads only; another level runs those of its probes that are missing, and
            loads the model for it.
        surrogates: models whose adversarial examples are shown to this one, by name.
        tolerance: the overestimate that is let pass, as a share of all samples; None keeps that of
            the run's verdict, and is the run's own where it was not judged yet.
        detector: a fitted detector, or its file, that flags the samples in place of an earlier one;
            None keeps what was flagged before.
        model: the run's model, where it came from Python.
        data: the run's images and labels, where they came from Python.
        allow_code: run the code that the run's request names, such as its architecture: the folder
            may be anybody's.
        progress: receives progress updates; None is silent.

    Raises:
        RunFolderError: no such run, or it is damaged.
        DetectorError: no such detector, or it was fitted on another model.
        UsageError: the model or the data are not those of the run.
        UntrustedCodeError: probes need code that the run's request names.
    """
    progress = progress or Silent()
    opened = None if detector is None else Opened.of(detector)
    run = run if isinstance(run, store.Run) else store.load_run(run)
    tolerance = tolerance_of(run) if tolerance is None else tolerance
    level = run.request.with_(checks=checks, tolerance=tolerance).checks
    run.verify()
    if opened is not None:
        opened.kept.check_run(run.manifest.target)
    if checks != "none":
        if not run.complete:
            raise UsageError(f"{run.storage} is incomplete; probes need all of its blocks")
        if model is None and not allow_code:
            run.request.refuse_code(str(run.storage))
        threads = run.manifest.device.get("threads", torch.get_num_threads())
        with caller_kept(model, *surrogates), computing_with(threads):
            loaded = reopened(run, model, data).context
            others = surrogates_of(surrogates, level, loaded)
            probe(loaded, run, level, others, progress)
    return derive(run, tolerance, seconds_of(run), opened, progress)


def resolve(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    **options: Any,
) -> context.EvaluationContext:
    """What `evaluate` would attack, loaded, with its defaults filled in; nothing is attacked.

    A module that is given is the job's, in eval mode and on its device, from now on.
    """
    origin = origin_of(model, data)
    request = request_of(origin.target or model, attack, data, options)
    return context.resolve(request, origin.target, origin.dataset)
