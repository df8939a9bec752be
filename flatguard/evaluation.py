"""`evaluate()`, `resume()` and `audit()`: from a request or a folder to a run with its verdict.

The command line, the pytest plugin and notebooks call these functions. A new run, a resumed run and
a shard take the same path, `_carry_out`; each of them, and `audit()`, ends with `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flatguard.checks.preflight.gather import preflight_run
from flatguard.checks.surrogate_transfer import surrogates_of
from flatguard.checks.verdict import Verdict, tolerance_of
from flatguard.detection.detector_file import SavedDetector
from flatguard.environment.caller import own_process
from flatguard.errors import UsageError
from flatguard.execution import context as contexts
from flatguard.execution.advice import repair_advice, resume_advice
from flatguard.execution.compute_budget import ComputeBudget, load_spent
from flatguard.execution.context import EvaluationContext
from flatguard.execution.executors import Executor, InProcess
from flatguard.execution.executors.main_guard import end_if_imported
from flatguard.execution.missing_blocks import attack_missing_blocks, attack_new_run
from flatguard.execution.notebook_progress import default_progress
from flatguard.execution.origin import caller_state_kept, data_name, origin_of, torch_threads
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.reopening import reopen
from flatguard.execution.resources import Resources
from flatguard.execution.shard import Shard
from flatguard.execution.software import check_same_software
from flatguard.finishing import Gathering, finish
from flatguard.integrations.trackers import check_installed, log_result, tracker_names
from flatguard.option_values import AUTO
from flatguard.request import EvaluationRequest, make_request
from flatguard.runs import writing
from flatguard.runs.naming import default_folder
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import open_storage
from flatguard.targets.target import Target


def evaluate(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: Any = None,
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
        data: a pair of images in [0, 1] and labels; a torch `Dataset` or `DataLoader`; a list of
            batches; a Hugging Face data set; or a name or path. None means the model's own.
        out: the run folder, or an address such as `s3://bucket/run`; None names a new one under
            `reports/`.
        surrogates: models whose adversarial examples are shown to this one, by name.
        detector: a fitted detector, or its file, that flags the samples; `run.summary["detection"]`
            has what it flags. Another model's is refused before the attack.
        executor: attacks the blocks and gathers the evidence of the checks;
            `flatguard.execution.executors` has `InProcess()`, which is the default, `Processes(4)`
            and `Ray("auto")`. The evidence is the same.
        shard: `2/8` attacks the second of eight parts of the blocks and judges nothing;
            `flatguard.merge` puts the parts together.
        progress: receives progress updates; None shows a bar in a notebook, else nothing.
        command: the command line, for the manifest.
        **options: the fields of `EvaluationRequest`, by name: `eps="8/255"`, `attack_args`,
            `n_examples`, `batch_size`, `device`, `seed`, `checks`, `tolerance`, `log_to`, ...

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
    end_if_imported()
    progress, executor = progress or default_progress(), executor or InProcess()
    part = None if shard is None else Shard.parse(shard)
    opened = None if detector is None else SavedDetector.open(detector)
    with ExitStack() as stack:
        stack.enter_context(caller_state_kept(model, *surrogates))
        origin = origin_of(model, data)
        options["surrogates"] = [_name_of(surrogate) for surrogate in surrogates]
        options["detector"] = None if isinstance(detector, SavedDetector) else detector
        request = _request_of(origin.target or model, attack, data, options)
        _check_trackers(request.log_to, part)
        if part is not None and request.batch_size == AUTO:
            raise UsageError(
                f"--batch-size {AUTO} may find another size in each shard; find it in one run, "
                "and give all shards the number that its first line names"
            )
        resources = Resources(
            executor, progress, ComputeBudget(request.limits), part, first_step=preflight_run
        )
        storage = open_storage(out if out is not None else default_folder(request))
        writing.check_new(storage)
        stack.enter_context(torch_threads(request.threads or executor.threads))
        stack.enter_context(resume_advice(storage, request, progress))
        context = contexts.resolve(request, origin.target, origin.dataset)
        if opened is not None:
            opened.check_target(context.target)
        return _carry_out(
            context,
            surrogates,
            resources,
            opened,
            request.log_to,
            lambda: attack_new_run(context, storage, command, resources),
        )


def resume(
    run: Run | str | Path,
    *,
    model: nn.Module | Target | None = None,
    data: Any = None,
    surrogates: Sequence[str | Target] | None = None,
    max_failures: int | None = None,
    detector: str | Path | SavedDetector | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    allow_code: bool = False,
    log_to: str | Sequence[str] = (),
    progress: ProgressReporter | None = None,
) -> Run:
    """Attack the blocks and run the checks that a run lacks, nothing twice; then judge it.

    The evidence is the same, byte for byte, as if the run had never been interrupted.

    Args:
        run: the run, or its folder.
        model: the run's model, where it came from Python.
        data: the run's images and labels, where they came from Python; likewise `surrogates`.
        max_failures: replaces the run's own number.
        detector: as for `evaluate`. A run holds no detector's flags until it has ended.
        executor: as for `evaluate`; it may differ from the one before.
        shard: as for `evaluate`.
        allow_code: run the code that the run's request names, such as its architecture.
        log_to: trackers that the result is logged to; the request's are not asked again, as the
            folder may come from anyone.
        progress: receives progress updates; None shows a bar in a notebook, else nothing.

    Raises:
        UntrustedCodeError: the run's request names code, and `allow_code` is not set.
        UsageError: weights, data, versions or device are not those that the run began with.
        RunFolderError: no such run, or it is damaged.
    """
    end_if_imported()
    progress, executor = progress or default_progress(), executor or InProcess()
    part = None if shard is None else Shard.parse(shard)
    trackers = tracker_names(log_to)
    _check_trackers(trackers, part)
    found = load_run(run.storage if isinstance(run, Run) else run)
    request = found.request
    if model is None and not allow_code:
        request.refuse_code(str(found.storage))
    with repair_advice():
        found.verify()
        spent = load_spent(found)
    check_same_software(found)
    opened = _detector_of(found, detector)
    budget = ComputeBudget(request.limits, spent)
    resources = Resources(executor, progress, budget, part, max_failures, preflight_run)
    with (
        caller_state_kept(model, *(surrogates or ())),
        torch_threads(_threads(found)),
        resume_advice(found.storage, request, progress),
    ):
        context = reopen(found, origin_of(model, data), check_data=True)
        if opened is not None:
            opened.check_target(context.target)

        def attack() -> tuple[EvaluationContext, Run]:
            done, planned = len(found.blocks), len(found.manifest.blocks)
            progress.log(f"{done} of {planned} blocks were done before")
            return context, attack_missing_blocks(context, found, resources)

        named = request.surrogates if surrogates is None else surrogates
        return _carry_out(context, named, resources, opened, trackers, attack)


def _carry_out(
    context: EvaluationContext,
    surrogates: Sequence[str | Target],
    resources: Resources,
    detector: SavedDetector | None,
    trackers: Sequence[str],
    attack: Callable[[], tuple[EvaluationContext, Run]],
) -> Run:
    """Attack, gather, judge and report: the path of a new run, a resumed run and a shard.

    A shard ends after the attack. `attack` returns another context where the batch was halved.
    """
    checks = context.request.checks
    others = surrogates_of(surrogates, checks, context)
    for line in contexts.describe(context):
        resources.progress.log(line)
    context, run = attack()
    if resources.shard is None:
        gathering = Gathering(context, checks, others, resources.executor)
        finish(run, resources.progress, gathering, detector, None, resources.compute_budget)
        log_result(run, trackers, resources.progress)
    return run


def _check_trackers(names: Sequence[str], shard: Shard | None) -> None:
    """Refuse trackers that could not be logged to, before anything is attacked."""
    if names and shard is not None:
        raise UsageError(
            "--log-to: a shard is not judged; merge the shards, then log the run with flatguard "
            "audit RUN --log-to TRACKER"
        )
    check_installed(names)


def audit(
    run: Run | str | Path,
    *,
    checks: str = "none",
    surrogates: Sequence[str | Target] = (),
    tolerance: float | None = None,
    detector: str | Path | SavedDetector | None = None,
    model: nn.Module | Target | None = None,
    data: Any = None,
    allow_code: bool = False,
    log_to: str | Sequence[str] = (),
    executor: Executor | None = None,
    progress: ProgressReporter | None = None,
) -> Verdict:
    """Judge a run again from its folder, without the model; or run the checks that are missing.

    Args:
        run: the run, or its folder.
        checks: `none` only reads; another level runs those of its checks that are missing, and
            loads the model for it.
        surrogates: models whose adversarial examples are shown to this one, by name.
        tolerance: the overestimate that is accepted, as a share of all samples; None keeps that of
            the run's verdict, and is the run's own where it was not judged yet.
        detector: a fitted detector, or its file, that flags the samples in place of an earlier one;
            None keeps what was flagged before.
        model: the run's model, where it came from Python.
        data: the run's images and labels, where they came from Python.
        allow_code: run the code that the run's request names, such as its architecture: the folder
            may come from anyone.
        executor: as for `evaluate`; its workers gather the evidence.
        log_to: trackers that the result is logged to; see `flatguard.log_run`.
        progress: receives progress updates; None shows a bar in a notebook, else nothing.

    Raises:
        RunFolderError: no such run, or it is damaged.
        DetectorError: no such detector, or it was fitted on another model.
        UsageError: the model or the data are not those of the run.
        UntrustedCodeError: checks need code that the run's request names.
    """
    end_if_imported()
    progress, trackers = progress or default_progress(), tracker_names(log_to)
    check_installed(trackers)
    with ExitStack() as stack:
        stack.enter_context(caller_state_kept(model, *surrogates))
        run = run if isinstance(run, Run) else load_run(run)
        tolerance = tolerance_of(run) if tolerance is None else tolerance
        level = run.request.with_(checks=checks, tolerance=tolerance).checks
        run.verify()
        opened = _detector_of(run, detector)
        gathering = None
        if level != "none":
            if not run.complete:
                raise UsageError(f"{run.storage} is incomplete; checks need all of its blocks")
            if model is None and not allow_code:
                run.request.refuse_code(str(run.storage))
            stack.enter_context(torch_threads(_threads(run)))
            context = reopen(run, origin_of(model, data), check_data=True)
            if opened is not None:
                opened.check_target(context.target)
            others = surrogates_of(surrogates, level, context)
            gathering = Gathering(context, level, others, executor)
        verdict = finish(run, progress, gathering, opened, tolerance)
        log_result(run, trackers, progress)
        return verdict


def _detector_of(run: Run, detector: str | Path | SavedDetector | None) -> SavedDetector | None:
    """The detector, if one is given; it must have been fitted on the run's model."""
    if detector is None:
        return None
    opened = SavedDetector.open(detector)
    opened.check_run(run.manifest.target)
    return opened


def _threads(run: Run) -> int:
    """The number of threads that a run began with."""
    threads: int = run.manifest.device.get("threads", torch.get_num_threads())
    return threads


@own_process()
def resolve(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: Any = None,
    **options: Any,
) -> EvaluationContext:
    """What `evaluate` would attack, loaded, with its defaults filled in; nothing is attacked.

    A module that is given belongs to the context from now on: in eval mode and on its device.
    """
    origin = origin_of(model, data)
    request = _request_of(origin.target or model, attack, data, options)
    return contexts.resolve(request, origin.target, origin.dataset)


def _request_of(
    model: str | nn.Module | Target,
    attack: str,
    data: Any,
    options: Mapping[str, Any],
) -> EvaluationRequest:
    """The request for these arguments; an object from Python stands in it by its name."""
    return make_request(
        model=_name_of(model),
        attack=attack,
        dataset=data_name(data),
        **options,
    )


def _name_of(model: str | nn.Module | Target) -> Any:
    return model.name if isinstance(model, Target) else model
