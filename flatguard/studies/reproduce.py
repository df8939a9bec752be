"""`reproduce()`: one study on the user's own model, and the provenance of its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from flatguard.errors import RunFolderError, UsageError
from flatguard.evaluation import resolve
from flatguard.execution.context import EvaluationContext
from flatguard.execution.origin import caller_state_kept
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.execution.reopening import data_sha256
from flatguard.execution.software import versions
from flatguard.reporting.prompt_report import PAGE
from flatguard.runs.facts import TargetFacts
from flatguard.runs.layout import EVIDENCE
from flatguard.runs.prompt_run import PromptRun
from flatguard.runs.run import load_run
from flatguard.studies import find_study
from flatguard.studies.prompts import (
    attacked_prompts,
    model_facts_of,
    opened_prompts,
    prompts_shown,
)
from flatguard.studies.result import ModelFacts, Result, Shown
from flatguard.studies.study import Study, Subject
from flatguard.targets.target import Target


def reproduce(
    name: str,
    models: Sequence[str | nn.Module | Target],
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    progress: ProgressReporter | None = None,
    n_examples: int | None = None,
    **fields: Any,
) -> Result:
    """Run one study of a paper.

    Args:
        name: as listed by `flatguard reproduce --list`.
        models: names, paths, modules or Targets: one, or as many as the study compares.
        data: a pair of images in [0, 1] and labels, or a data set's name; None means the
            model's own.
        progress: receives progress updates; None is silent.
        n_examples: how many samples, from the first on; None means the study's own number, or all
            if fewer.
        **fields: fields of `EvaluationRequest`, such as `arch`, `mean`, `std`, `device`,
            `seed`, `batch_size`.

    Raises:
        UsageError: no such study, it cannot be run, or the number of models is wrong.
        FlatguardError: from the model, the data or the attack.
    """
    study = find_study(name)
    _check_models(study, len(models))
    if study.prompts is not None:
        if data is not None:
            raise UsageError(f"--dataset belongs to images, and {study.name} has prompts")
        run = attacked_prompts(study, models, n_examples, fields, progress or Silent())
        return _of_prompts(study, run, progress or Silent())
    with caller_state_kept(*models):
        subject = _subject(study, models, data, progress or Silent(), n_examples, fields)
        about = f"; {study.protocol}; {subject.count} samples" if models else ""
        facts = tuple(_model_facts(context.target) for context in subject.contexts)
        shown = _samples_shown(subject.context, str(study.protocol)) if models else None
        return _measured(subject, about, facts, shown)


def reproduce_from_runs(
    name: str, folders: Sequence[str | Path], *, progress: ProgressReporter | None = None
) -> Result:
    """Run one study over checkpoints that are already measured; no model is loaded.

    Args:
        name: of a study that takes runs.
        folders: runs of `flatguard geometry robust-flatness`, or folders of such runs; for a
            study of prompts, one run of `flatguard evaluate --prompt`.
        progress: receives progress updates; None is silent.

    Raises:
        UsageError: no such study, it takes no runs, or the runs cannot be compared.
        RunFolderError: a folder holds no run, or one without what the study needs.
    """
    study, progress = find_study(name), progress or Silent()
    if study.prompts is not None:
        return _of_prompts(study, opened_prompts(study, folders), progress)
    if study.run is None or study.models != "runs":
        raise UsageError(f"{study.name} takes no --runs; it looks at a --model")
    runs = tuple(load_run(path) for folder in folders for path in _run_folders(Path(folder)))
    alike = {
        (str(run.request.budget()), run.request.attack, run.manifest.data.sha256) for run in runs
    }
    if len(alike) > 1:
        raise UsageError(f"{study.name}: these runs differ in budget, attack or data; name others")
    first = runs[0]
    shown = Shown(
        protocol=f"{first.request.attack} within {first.request.budget()}",
        data=first.manifest.data.name,
        sha256=first.manifest.data.sha256,
        samples=len(first.samples),
        seed=first.request.seed,
        device=first.request.device or "",
    )
    facts = tuple(_model_facts(run.manifest.target, run.path.name) for run in runs)
    return _measured(Subject(study, (), progress, runs), f"; {len(runs)} runs", facts, shown)


def _of_prompts(study: Study, run: PromptRun, progress: ProgressReporter) -> Result:
    about = f"; {len(run.request.prompts)} prompts; its figure is in {run.path / PAGE}"
    subject = Subject(study, (), progress, prompt_run=run)
    return _measured(subject, about, (model_facts_of(run),), prompts_shown(run))


def _measured(
    subject: Subject, about: str, models: tuple[ModelFacts, ...], shown: Shown | None
) -> Result:
    study = subject.study
    subject.progress.log(f"{study.name}: {study.reference}{about}")
    began = time.perf_counter()
    assert study.run is not None, "the callers refuse what cannot be run"
    outcome = study.run(subject)
    return Result(
        study=study.name,
        paper=study.paper,
        reference=study.reference,
        claim=study.claim,
        claims=outcome.claims,
        figures=outcome.figures,
        notes=outcome.notes,
        models=models,
        shown=shown,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - began, 3),
    )


def _run_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs in it."""
    if (folder / EVIDENCE).is_dir() or not folder.is_dir():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{EVIDENCE}"))
    if not found:
        raise RunFolderError(f"{folder} holds no runs")
    return found


def _check_models(study: Study, given: int) -> None:
    """Refuse a study that cannot be run, or a number of models that it does not take."""
    if study.run is None:
        raise UsageError(f"{study.name} cannot be run ({study.status}): {study.why}")
    wanted = {
        "one": "one --model",
        "many": "at least one --model",
        "none": "no --model",
        "runs": "--runs FOLDER, or at least one --model",
        "prompts": "--runs FOLDER of a run on prompts, or one --model",
    }
    fits = {"one": given == 1, "prompts": given == 1, "none": given == 0}
    if not fits.get(study.models, given >= 1):
        raise UsageError(f"{study.name}: expected {wanted[study.models]}, got {given}")


def _subject(
    study: Study,
    models: Sequence[str | nn.Module | Target],
    data: tuple[Tensor, Tensor] | str | None,
    progress: ProgressReporter,
    n_examples: int | None,
    fields: dict[str, Any],
) -> Subject:
    protocol = study.protocol
    contexts = [
        resolve(
            model,
            protocol.attack,
            data=data,
            norm=protocol.norm,
            eps=protocol.eps,
            attack_args=protocol.args,
            n_examples=n_examples,
            **fields,
        )
        for model in models
    ]
    if contexts and n_examples is None:
        count = min(study.samples, contexts[0].count)
        contexts = [_on_samples(context, count) for context in contexts]
    return Subject(study, tuple(contexts), progress)


def _on_samples(context: EvaluationContext, count: int) -> EvaluationContext:
    return replace(context, request=context.request.model_copy(update={"n_examples": count}))


def _samples_shown(context: EvaluationContext, protocol: str) -> Shown:
    return Shown(
        protocol=protocol,
        data=context.dataset.name,
        sha256=data_sha256(context),
        samples=context.count,
        seed=context.request.seed,
        device=str(context.device),
    )


def _model_facts(target: Target | TargetFacts, name: str | None = None) -> ModelFacts:
    return ModelFacts(
        name=name or target.name, source=target.source, weights_sha256=target.weights_sha256
    )
