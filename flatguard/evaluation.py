"""`evaluate()`, `resume()` and `audit()`: from a request or a folder to a run with its verdict.

What the command line, the pytest plugin and notebooks call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.checks.gathering import gather_evidence
from flatguard.checks.surrogate_transfer import surrogates_of
from flatguard.checks.verdict import Verdict, tolerance_of
from flatguard.detection.detector_file import SavedDetector
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError, UsageError
from flatguard.execution import context
from flatguard.execution.batch_size import halve_batch
from flatguard.execution.compute_budget import ComputeBudget, load_spent
from flatguard.execution.executors import Executor, InProcess
from flatguard.execution.missing_blocks import attack_missing_blocks
from flatguard.execution.origin import caller_state_kept, origin_of, torch_threads
from flatguard.execution.plan import plan_run
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.execution.resources import Resources
from flatguard.execution.shard import Shard
from flatguard.execution.software import check_same_software
from flatguard.reporting.derived import derive, seconds_of
from flatguard.request import EvaluationRequest, make_request
from flatguard.runs import writing
from flatguard.runs.naming import default_folder
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import RunStorage, open_storage
from flatguard.targets.target import Target


def evaluate(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    out: str | Path | None = None,
    surrogates: Sequence[str | Target] = (),
    detector: str | Path | SavedDetector | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    progress: ProgressReporter | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> Run:
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
        command: the command line, for the manifest.
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
    opened = None if detector is None else SavedDetector.open(detector)
    with ExitStack() as stack:
        stack.enter_context(caller_state_kept(model, *surrogates))
        origin = origin_of(model, data)
        options["surrogates"] = [_name_of(surrogate) for surrogate in surrogates]
        options["detector"] = None if isinstance(detector, SavedDetector) else detector
        request = _request_of(origin.target or model, attack, data, options)
        began = time.perf_counter()
        resources = Resources(executor, progress, ComputeBudget(request.limits), part)
        storage = open_storage(out if out is not None else default_folder(request))
        writing.check_new(storage)
        stack.enter_context(torch_threads(request.threads or executor.threads))
        stack.enter_context(_going_on_later(storage, request, progress))
        resolved = context.resolve(request, origin.target, origin.dataset)
        if opened is not None:
            opened.check_target(resolved.target)
        others = surrogates_of(surrogates, request.checks, resolved)
        _introduce(resolved, progress)
        resolved, run = _attacked(resolved, storage, command, resources)
        if part is not None:
            return run
        return _finished(resolved, run, others, resources, began, opened)


def _attacked(
    resolved: context.EvaluationContext,
    storage: RunStorage,
    command: Sequence[str],
    resources: Resources,
) -> tuple[context.EvaluationContext, Run]:
    """A new run whose blocks are attacked, in batches that fit the device's memory."""
    while True:
        run = plan_run(resolved, storage, command, resources.progress)
        try:
            return resolved, attack_missing_blocks(resolved, run, resources)
        except BaseException as error:
            smaller = halve_batch(run, error)
            if smaller is None:
                writing.drop_if_nothing_was_recorded(run)
                raise
        # Only here: an error that is being handled holds the memory of the pass that it ended.
        resources.progress.log(
            f"batches of {resolved.block_size} do not fit the memory; this is another run, with "
            f"batches of {smaller.batch_size}"
        )
        storage.drop()
        origin = resolved.origin
        resolved = context.resolve(smaller, origin.target, origin.dataset)


def resume(
    run: Run | str | Path,
    *,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    surrogates: Sequence[str | Target] | None = None,
    max_failures: int | None = None,
    detector: str | Path | SavedDetector | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    allow_code: bool = False,
    progress: ProgressReporter | None = None,
) -> Run:
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
    found = load_run(run.storage if isinstance(run, Run) else run)
    if model is None and not allow_code:
        found.request.refuse_code(str(found.storage))
    with _mendable():
        found.verify()
        spent = load_spent(found)
    check_same_software(found)
    opened = None if detector is None else SavedDetector.open(detector)
    if opened is not None:
        opened.check_run(found.manifest.target)
    manifest, began = found.manifest, time.perf_counter()
    compute_budget = ComputeBudget(found.request.limits, spent)
    resources = Resources(executor, progress, compute_budget, part, max_failures)
    threads = manifest.device.get("threads", torch.get_num_threads())
    with (
        caller_state_kept(model, *(surrogates or ())),
        torch_threads(threads),
        _going_on_later(found.storage, found.request, progress),
    ):
        resolved = context.reopen(found, origin_of(model, data), check_data=True)
        named = found.request.surrogates if surrogates is None else surrogates
        others = surrogates_of(named, found.request.checks, resolved)
        _introduce(resolved, progress)
        done, planned = len(found.blocks), len(manifest.blocks)
        progress.log(f"{done} of {planned} blocks were done before")
        found = attack_missing_blocks(resolved, found, resources)
        if part is not None:
            return found
        return _finished(resolved, found, others, resources, began, opened)


def _finished(
    resolved: context.EvaluationContext,
    run: Run,
    others: Sequence[Target],
    resources: Resources,
    began: float,
    opened: SavedDetector | None,
) -> Run:
    """Probe what was attacked, judge it, and draw the report."""
    checks = run.request.checks
    if checks != "none" and run.complete:
        gather_evidence(resolved, run, checks, others, resources.progress, resources.compute_budget)
    derive(run, tolerance_of(run), time.perf_counter() - began, opened, resources.progress)
    return run


def _introduce(resolved: context.EvaluationContext, progress: ProgressReporter) -> None:
    progress.log(context.describe(resolved))
    for note in resolved.target.notes:
        progress.log(note)
    if resolved.target.head is None:
        progress.log(f"κ is not measured: {resolved.target.head_reason}")


@contextmanager
def _going_on_later(
    storage: RunStorage, request: EvaluationRequest, progress: ProgressReporter
) -> Iterator[None]:
    """Says how to take up a run that a person interrupts, where there is one by then."""
    try:
        yield
    except KeyboardInterrupt:
        if storage.path.is_dir():
            progress.log(f"flatguard resume {quoted(storage)}{request.consent} goes on")
        raise


@contextmanager
def _mendable() -> Iterator[None]:
    """Says what to do about a block or a probe that is damaged."""
    try:
        yield
    except RunFolderError as error:
        raise RunFolderError(
            f"{error}; remove the folder that it is in; flatguard resume does that part again"
        ) from error


def audit(
    run: Run | str | Path,
    *,
    checks: str = "none",
    surrogates: Sequence[str | Target] = (),
    tolerance: float | None = None,
    detector: str | Path | SavedDetector | None = None,
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
    opened = None if detector is None else SavedDetector.open(detector)
    run = run if isinstance(run, Run) else load_run(run)
    tolerance = tolerance_of(run) if tolerance is None else tolerance
    level = run.request.with_(checks=checks, tolerance=tolerance).checks
    run.verify()
    if opened is not None:
        opened.check_run(run.manifest.target)
    if checks != "none":
        if not run.complete:
            raise UsageError(f"{run.storage} is incomplete; probes need all of its blocks")
        if model is None and not allow_code:
            run.request.refuse_code(str(run.storage))
        threads = run.manifest.device.get("threads", torch.get_num_threads())
        with caller_state_kept(model, *surrogates), torch_threads(threads):
            loaded = context.reopen(run, origin_of(model, data), check_data=True)
            others = surrogates_of(surrogates, level, loaded)
            gather_evidence(loaded, run, level, others, progress)
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
    request = _request_of(origin.target or model, attack, data, options)
    return context.resolve(request, origin.target, origin.dataset)


def _request_of(
    model: str | nn.Module | Target,
    attack: str,
    data: tuple[Tensor, Tensor] | str | None,
    options: Mapping[str, Any],
) -> EvaluationRequest:
    """The request for these arguments; an object from Python stands in it by its name."""
    return make_request(
        model=_name_of(model),
        attack=attack,
        dataset=data if isinstance(data, str) else None,
        **options,
    )


def _name_of(model: str | nn.Module | Target) -> Any:
    return model.name if isinstance(model, Target) else model
