"""Studies of attacks on prompts: a run on prompts takes the place of models and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from flatguard.data.prompt_file import read_prompts
from flatguard.environment.system import quoted
from flatguard.errors import UsageError
from flatguard.execution.progress import ProgressReporter
from flatguard.prompt_request import PromptRequest
from flatguard.prompts import evaluate_prompts
from flatguard.request import EvaluationRequest, option_name
from flatguard.runs.facts import digest
from flatguard.runs.prompt_run import PromptRun, load_prompt_run
from flatguard.studies.result import ModelFacts, Shown
from flatguard.studies.study import Study


def attacked_prompts(
    study: Study,
    models: Sequence[Any],
    n_examples: int | None,
    fields: Mapping[str, Any],
    progress: ProgressReporter,
    out: Path | None = None,
) -> PromptRun:
    """The study's attack on its prompts, in a new run folder.

    Args:
        study: of prompts.
        models: one language model.
        n_examples: how many prompts, from the first on; None takes all.
        fields: those of an evaluation on images; the ones that prompts have too are used.
        progress: receives progress updates.
        out: the folder; None names a new one under `reports/`.

    Raises:
        UsageError: an option that belongs to images.
    """
    protocol = study.prompts
    assert protocol is not None, "the caller looks"
    known = EvaluationRequest.model_fields
    for name, value in fields.items():
        if name not in PromptRequest.model_fields and value != known[name].default:
            raise UsageError(f"{option_name(name)} belongs to images, and {study.name} has prompts")
    with as_file(files("flatguard.studies").joinpath(protocol.file)) as file:
        pairs = read_prompts(file)
    own = {name: value for name, value in fields.items() if name in PromptRequest.model_fields}
    run = evaluate_prompts(
        models[0],
        pairs[:n_examples],
        attack=protocol.attack,
        attack_args=protocol.args,
        steps=protocol.steps,
        out=out,
        progress=progress,
        **own,
    )
    if not run.complete:
        again = f"flatguard resume {quoted(run.path)}"
        raise UsageError(f"{run.path} is incomplete; {again} goes on")
    return run


def opened_prompts(study: Study, folders: Sequence[str | Path]) -> PromptRun:
    """The run on prompts that `--runs` names.

    Raises:
        UsageError: not exactly one.
    """
    if len(folders) != 1:
        raise UsageError(f"{study.name}: expected one run on prompts, got {len(folders)}")
    return load_prompt_run(folders[0])


def model_facts_of(run: PromptRun) -> ModelFacts:
    """The model of a run on prompts."""
    model = run.manifest.model
    return ModelFacts(name=model.name, source=model.source, weights_sha256=model.weights_sha256)


def prompts_shown(run: PromptRun) -> Shown:
    """The prompts of a run, and the attack on them."""
    request, args = run.request, run.manifest.attack_args
    width = f", search_width={args['search_width']}" if "search_width" in args else ""
    return Shown(
        protocol=f"{request.attack} ({request.steps} steps{width})",
        data="prompts",
        sha256=digest([one.model_dump() for one in request.prompts]),
        samples=len(request.prompts),
        seed=request.seed,
        device=request.device or "",
    )
