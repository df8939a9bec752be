"""`evaluate()`: from a spec to a finished run with its summary.

What the command line, the pytest plugin and notebooks call.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from flatguard import job
from flatguard.allowance import NO_LIMITS, Allowance, Limits
from flatguard.block import Bench, asked_layers
from flatguard.detection.flagged import Detection, Opened, flag, load_detection, write_detection
from flatguard.detection.kept import KeptDetector
from flatguard.errors import OutOfMemory, RunFolderError, UsageError, one_line
from flatguard.executors import Executor, InProcess, computing_with
from flatguard.masking.evidence import Evidence
from flatguard.masking.statistics import CONFIDENCE_LEVEL, interval
from flatguard.masking.verdict import TOLERANCE, VERDICT, Verdict, judge
from flatguard.observer import Observer, Silent
from flatguard.probes.plan import LEVELS, Checks, probe
from flatguard.reporting.draw import draw_report
from flatguard.runner import Asked, Shard, fill, plan, same_software
from flatguard.runs import store, writing
from flatguard.runs.naming import default_folder
from flatguard.runs.place import open_place
from flatguard.runs.probe_store import load_probes
from flatguard.runs.spec import RunSpec, make_spec
from flatguard.targets import load_target
from flatguard.targets.checkpoint import Program
from flatguard.targets.datasets import ArrayDataset, Dataset
from flatguard.targets.target import Target, make_target


def evaluate(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    out: str | Path | None = None,
    checks: str = "fast",
    surrogates: Sequence[str | Target] = (),
    tolerance: float = TOLERANCE,
    max_forwards: int | None = None,
    max_minutes: float | None = None,
    max_failures: int | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
    detector: str | Path | KeptDetector | None = None,
    observer: Observer | None = None,
    command: Sequence[str] = (),
    **fields: Any,
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
        checks: how much is spent on the verdict: `fast`, `standard`, `full`, or `none`.
        surrogates: models whose adversarial examples are shown to this one, by name.
        tolerance: the overestimate that is let pass, as a share of all samples.
        max_forwards: the images that the attack and the checks may send forward together.
        max_minutes: the time that all of it may take. A run that spends either is inconclusive.
        max_failures: samples on which the model may raise before the run ends; None is one in a
            hundred. They count as not robust.
        executor: who attacks: `flatguard.executors.InProcess()`, which is the default,
            `Processes(4)` or `Ray("auto")`.
        shard: `2/8` attacks the second of eight parts of the blocks and judges nothing;
            `flatguard.merge` puts the parts together.
        detector: a fitted detector, or its file, that flags the samples; `run.summary["detection"]`
            has what it flags. Another model's is refused before the attack.
        observer: is told of the progress; None is silent.
        command: what the manifest says was typed.
        **fields: the remaining fields of `RunSpec`, such as `eps="8/255"`, `attack_args`,
            `n_examples`, `batch_size`, `device`, `seed`.

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
    level, allowance = _level(checks, tolerance), Allowance(_limits(max_forwards, max_minutes))
    observer, executor = observer or Silent(), executor or InProcess()
    _check_executor(executor, allowance)
    part = None if shard is None else Shard.parse(shard)
    opened = None if detector is None else Opened.of(detector)
    target = _target(model)
    dataset = _dataset(data)
    spec = _spec(model, attack, data, fields)
    began = time.perf_counter()
    place = open_place(out if out is not None else default_folder(spec))
    writing.check_new(place)
    with computing_with(spec.threads or executor.threads):
        resolved = job.resolve(spec, target, dataset)
        if opened is not None:
            opened.kept.check_target(resolved.target)
        others = _surrogates(surrogates, level, resolved)
        _introduce(resolved, observer)
        asked = Asked(command, checks, _names(surrogates), tolerance, max_failures)
        while True:
            layers = asked_layers(resolved)
            run = plan(resolved, place, asked, observer, allowance)
            bench = Bench(resolved, run, layers)
            try:
                run = fill(bench, executor, observer, allowance, part)
                break
            except BaseException as error:
                smaller = _halved(resolved, run, error)
                if smaller is None:
                    writing.drop_if_nothing_was_recorded(run)
                    raise
                observer.said(
                    f"batches of {resolved.block_size} do not fit the device's memory; this is "
                    f"another run, with batches of {smaller.batch_size}"
                )
                run.place.drop()
                resolved = job.resolve(smaller, target, dataset)
        if part is not None:
            return run
        return _finished(resolved, run, others, observer, allowance, began, opened)


def _halved(resolved: job.Job, run: store.Run, error: BaseException) -> RunSpec | None:
    """The spec with half the batch, where memory ran out before anything was committed.

    Attacks draw their random starts for a whole batch, so that smaller ones are another run.
    """
    begun = bool(store.load_run(run.place).blocks)
    if begun or resolved.block_size == 1 or not isinstance(error, OutOfMemory):
        return None
    return resolved.spec.model_copy(update={"batch_size": resolved.block_size // 2})


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
    observer: Observer | None = None,
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
        allow_code: run the code that the run's spec names, such as its architecture.
        observer: is told of the progress; None is silent.

    Raises:
        UntrustedCodeError: the run's spec names code, and nobody allowed it.
        UsageError: weights, data, versions or device are not those that the run began with.
        RunFolderError: no such run, or it is damaged.
    """
    observer, executor = observer or Silent(), executor or InProcess()
    part = None if shard is None else Shard.parse(shard)
    found = store.load_run(run.place if isinstance(run, store.Run) else run)
    if model is None and not allow_code:
        found.spec.refuse_code(str(found.place))
    found.verify()
    same_software(found)
    opened = None if detector is None else Opened.of(detector)
    if opened is not None:
        opened.kept.check_run(found.manifest.target)
    manifest, began = found.manifest, time.perf_counter()
    allowance = Allowance(manifest.limits, spent=_spent(found))
    _check_executor(executor, allowance)
    level = _level(manifest.checks, manifest.tolerance)
    with computing_with(manifest.device.get("threads", torch.get_num_threads())):
        bench = _opened(found, model, data)
        named = manifest.surrogates if surrogates is None else surrogates
        others = _surrogates(named, level, bench.job)
        _introduce(bench.job, observer)
        done, planned = len(found.blocks), len(manifest.blocks)
        observer.said(f"{done} of {planned} blocks were done before")
        found = fill(bench, executor, observer, allowance, part, max_failures)
        if part is not None:
            return found
        return _finished(bench.job, found, others, observer, allowance, began, opened)


def _finished(
    resolved: job.Job,
    run: store.Run,
    others: Sequence[Target],
    observer: Observer,
    allowance: Allowance,
    began: float,
    opened: Opened | None,
) -> store.Run:
    """Probe what was attacked, judge it, and draw the report."""
    checks = cast(Checks, run.manifest.checks)
    if checks != "none" and run.complete:
        probe(resolved, run, checks, others, observer, allowance)
    _derive(run, run.manifest.tolerance, time.perf_counter() - began, opened)
    _draw(run, observer)
    run.place.push()
    return run


def _introduce(resolved: job.Job, observer: Observer) -> None:
    observer.said(job.describe(resolved))
    for note in resolved.target.notes:
        observer.said(note)
    if resolved.target.head is None:
        observer.said(f"κ is not measured: {resolved.target.head_reason}")


def _check_executor(executor: Executor, allowance: Allowance) -> None:
    if allowance.limits != NO_LIMITS and not isinstance(executor, InProcess):
        raise UsageError(
            "--max-forwards and --max-minutes are counted in one process; leave out --workers and "
            "--executor"
        )


def _spent(run: store.Run) -> int:
    """The forward passes that a run's blocks and probes took so far."""
    probes = load_probes(run).values()
    attacked = sum(block.sample_forwards for block in run.blocks)
    return attacked + sum(facts.sample_forwards for facts in probes)


def _names(surrogates: Sequence[str | Target]) -> list[str]:
    return [s if isinstance(s, str) else s.name for s in surrogates]


def resolve(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    **fields: Any,
) -> job.Job:
    """What `evaluate` would attack, loaded, with its defaults filled in; nothing is attacked."""
    return job.resolve(_spec(model, attack, data, fields), _target(model), _dataset(data))


def _spec(
    model: str | nn.Module | Target,
    attack: str,
    data: tuple[Tensor, Tensor] | str | None,
    fields: dict[str, Any],
) -> RunSpec:
    target = _target(model)
    return make_spec(
        model=target.name if target else model,
        attack=attack,
        dataset=data if isinstance(data, str) else None,
        **fields,
    )


def _limits(max_forwards: int | None, max_minutes: float | None) -> Limits:
    try:
        return Limits(max_forwards=max_forwards, max_minutes=max_minutes)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option}: {first['msg']}, got {first['input']!r}") from error


def audit(
    run: store.Run | str | Path,
    *,
    checks: str = "none",
    surrogates: Sequence[str | Target] = (),
    tolerance: float = TOLERANCE,
    detector: str | Path | KeptDetector | None = None,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    allow_code: bool = False,
    observer: Observer | None = None,
) -> Verdict:
    """Judge a run again from its folder, without the model; or run the probes that are missing.

    Args:
        run: the run, or its folder.
        checks: `none` reads only; another level runs those of its probes that are missing, and
            loads the model for it.
        surrogates: models whose adversarial examples are shown to this one, by name.
        tolerance: the overestimate that is let pass, as a share of all samples.
        detector: a fitted detector, or its file, that flags the samples in place of an earlier one;
            None keeps what was flagged before.
        model: the run's model, where it came from Python.
        data: the run's images and labels, where they came from Python.
        allow_code: run the code that the run's spec names, such as its architecture: the folder
            may be anybody's.
        observer: is told of the progress; None is silent.

    Raises:
        RunFolderError: no such run, or it is damaged.
        DetectorError: no such detector, or it was fitted on another model.
        UsageError: the model or the data are not those of the run.
        UntrustedCodeError: probes need code that the run's spec names.
    """
    level = _level(checks, tolerance)
    opened = None if detector is None else Opened.of(detector)
    run = run if isinstance(run, store.Run) else store.load_run(run)
    run.verify()
    if opened is not None:
        opened.kept.check_run(run.manifest.target)
    if checks != "none":
        if not run.complete:
            raise UsageError(f"{run.place} is incomplete; probes need all of its blocks")
        if model is None and not allow_code:
            run.spec.refuse_code(str(run.place))
        with computing_with(run.manifest.device.get("threads", torch.get_num_threads())):
            loaded = loaded_again(run, model, data)
            others = _surrogates(surrogates, level, loaded)
            probe(loaded, run, level, others, observer or Silent())
    verdict = _derive(run, tolerance, _seconds(run), opened)
    _draw(run, observer or Silent())
    run.place.push()
    return verdict


def _seconds(run: store.Run) -> float:
    """As the summary has it; it is derived, so that it may be missing or spoilt."""
    try:
        return float(run.summary["seconds"])
    except (RunFolderError, KeyError, TypeError, ValueError):
        return run.seconds("attack")


def _derive(
    run: store.Run, tolerance: float, seconds: float, opened: Opened | None = None
) -> Verdict:
    """Judge the evidence, and write what is derived from it beside it."""
    verdict = judge(Evidence.of(run), tolerance)
    detection = load_detection(run) if opened is None else flag(run, opened)
    store.write_text(run.path / VERDICT, verdict.model_dump_json(indent=2))
    if detection is not None:
        write_detection(run, detection)
    summary = summarise(run, verdict, seconds, detection)
    store.write_text(run.path / store.SUMMARY, json.dumps(summary, indent=2, allow_nan=False))
    run.__dict__.pop("summary", None)
    return verdict


def _draw(run: store.Run, observer: Observer) -> None:
    """Draw the report; whatever goes wrong there, the run and its verdict are kept."""
    try:
        draw_report(run)
    except Exception as error:
        observer.said(
            f"the report was not drawn: {one_line(error)}; the run is kept, draw it with "
            f"flatguard report {run.path}"
        )


def _level(checks: str, tolerance: float) -> Checks:
    if not 0 <= tolerance < 1:
        raise UsageError(f"--tolerance: expected a share from 0 to below 1, got {tolerance:g}")
    for level in get_args(Checks):
        if level == checks:
            return cast(Checks, level)
    levels = ", ".join(get_args(Checks))
    raise UsageError(f"--checks: expected one of {levels}, got {checks!r}")


def _surrogates(named: Sequence[str | Target], checks: Checks, resolved: job.Job) -> list[Target]:
    """The surrogates that are named; else the demo's model where it may know the classes."""
    fits = tuple(resolved.dataset.block(0, 1).images.shape[1:]) == (3, 32, 32)
    if not named and checks != "none" and LEVELS[checks].surrogate and resolved.num_classes == 10:
        named = ["demo"] if fits else []
    found = [load_target(name) if isinstance(name, str) else name for name in named]
    for surrogate in found:
        surrogate.model.to(resolved.device)
    return [s for s in found if s.weights_sha256 != resolved.target.weights_sha256]


def loaded_again(
    run: store.Run,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
) -> job.Job:
    """What a run was made of, loaded again.

    Raises:
        UsageError: its weights or its images are others now, or came from Python and are not given.
    """
    return _opened(run, model, data).job


def _opened(
    run: store.Run, model: nn.Module | Target | None, data: tuple[Tensor, Tensor] | None
) -> Bench:
    """The run's job, loaded again; all of its data is read to see that they are the same."""
    target = None if model is None else _target(model)
    bench = Bench.open(run, job.Origin(target, _dataset(data)))
    if job.data_sha256(bench.job) != run.manifest.data.sha256:
        raise UsageError(f"{run.manifest.data.name} serves other images now than for {run.place}")
    return bench


def summarise(
    run: store.Run, verdict: Verdict, seconds: float, detection: Detection | None = None
) -> dict[str, Any]:
    """The numbers that `--json` prints, from the evidence alone but for `seconds`."""
    spec, samples = run.spec, run.samples
    n, robust = len(samples), int(samples["robust"].sum())
    survived_clean = int(samples["clean_correct"].sum())
    failed = sum(len(block.failures) for block in run.blocks)
    return {
        "model": run.manifest.target.name,
        "attack": spec.attack,
        "norm": spec.norm,
        "eps": spec.budget().eps,
        "n_examples": n,
        "clean_accuracy": survived_clean / n,
        "clean_interval": interval(survived_clean, n),
        "robust_accuracy": robust / n,
        "robust_interval": interval(robust, n),
        "confidence_level": CONFIDENCE_LEVEL,
        "verdict": verdict.verdict,
        "mechanism": verdict.mechanism,
        "sentence": verdict.sentence,
        "corrected_robust_accuracy": verdict.corrected_robust_accuracy,
        "corrected_interval": verdict.corrected_interval,
        "overestimate": verdict.overestimate,
        "overestimate_interval": verdict.overestimate_interval,
        "tolerance": verdict.tolerance,
        "findings": [finding.model_dump(exclude={"data"}) for finding in verdict.findings],
        "next": verdict.next,
        "median_log_kappa_clean": _finite(samples["clean_log_kappa"].median()),
        "median_log_kappa_adversarial": _finite(samples["adv_log_kappa"].median()),
        "detection": None if detection is None else detection.model_dump(mode="json"),
        "outside_budget": int((~samples["admissible"]).sum()) - failed,
        "failed": failed,
        "sample_forwards": sum(block.sample_forwards for block in run.blocks),
        "sample_backwards": sum(block.sample_backwards for block in run.blocks),
        "check_forwards": sum(facts.sample_forwards for facts in load_probes(run).values()),
        "rows_unassigned": sum(block.rows_unassigned for block in run.blocks),
        "warnings": _warnings(run),
        "adversarial_sha256": run.adversarial_sha256(),
        "seconds": round(seconds, 3),
        "attack_seconds": round(run.seconds("attack"), 3),
        "run": str(run.place),
    }


def _warnings(run: store.Run) -> list[str]:
    """What the attack's library warned of, and calls on which the model gave no numbers."""
    found = {f"{run.spec.attack}: {text}" for block in run.blocks for text in block.warnings}
    for block in run.blocks:
        for failure in block.failures:
            found.add(
                f"sample {failure.sample} was not measured and counts as not robust: "
                f"{failure.error}"
            )
        if block.first_nonfinite is not None:
            found.add(
                f"the model gave NaN or infinite logits from call {block.first_nonfinite} on "
                f"(samples {block.plan.start} to {block.plan.stop - 1})"
            )
    return sorted(found)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _target(model: str | nn.Module | Target) -> Target | None:
    if isinstance(model, Target):
        return model
    if isinstance(model, torch.jit.ScriptModule):
        model = Program(model).train(model.training)  # hooks cannot sit on the script itself
    if isinstance(model, nn.Module):
        return make_target(model, type(model).__name__, job.FROM_PYTHON)
    if not isinstance(model, str):
        raise UsageError(
            f"model: expected a name, a path, a module or a Target, got {type(model).__name__}"
        )
    return None


def _dataset(data: tuple[Tensor, Tensor] | str | None) -> Dataset | None:
    if data is None or isinstance(data, str):
        return None
    if not isinstance(data, tuple) or len(data) != 2:
        raise UsageError("data: expected a data set's name or a pair of images and labels")
    images, labels = data
    numbers = labels if hasattr(labels, "shape") else np.asarray(labels)
    return ArrayDataset(images, numbers, job.DATA_FROM_PYTHON)
