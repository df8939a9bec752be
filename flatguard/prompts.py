"""`evaluate_prompts()` and `resume_prompts()`: an attack on a language model's prompts, judged.

The command line, the studies and notebooks call these functions. A new run and a resumed one take
the same path, `_carry_out`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flatguard.attacks.prompt_attack import find_prompt_attack
from flatguard.checks.prompt_answers import gather_answers
from flatguard.environment.caller import own_process
from flatguard.environment.system import quoted
from flatguard.errors import BudgetSpent, FlatguardError, UsageError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.notebook_progress import default_progress
from flatguard.execution.origin import torch_threads
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.prompts import (
    PromptContext,
    attack_prompt,
    check_same_run,
    manifest_of,
    resolve_prompts,
)
from flatguard.prompt_request import PromptAndTarget, PromptRequest
from flatguard.reporting.prompt_report import write_prompt_report
from flatguard.reporting.text import counted
from flatguard.request import validated
from flatguard.runs.naming import named_folder
from flatguard.runs.prompt_run import PromptRun, create_prompt_run, load_prompt_run
from flatguard.runs.storage import Folder
from flatguard.runs.writing import check_new
from flatguard.targets.language_model import LanguageModel
from flatguard.targets.language_models import load_language_model


@own_process()
def evaluate_prompts(
    model: str | LanguageModel,
    prompts: Sequence[tuple[str, str] | PromptAndTarget],
    *,
    attack: str = "gcg",
    out: str | Path | None = None,
    progress: ProgressReporter | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> PromptRun:
    """Attack prompts, record every accepted suffix, and judge the successes from the text.

    Args:
        model: a name as on the command line, or a `LanguageModel`, which is moved to the device.
        prompts: pairs of a prompt and the target that the model is made to answer.
        attack: `gcg`.
        out: the run folder; None names a new one under `reports/`.
        progress: receives progress updates; None shows a bar in a notebook, else nothing.
        command: the command line, for the manifest.
        **options: the fields of `PromptRequest`, by name: `steps`, `attack_args`, `generations`,
            `seed`, `device`, ...

    Returns:
        The run. `write_prompt_report(run)` and `judge_prompts(run)` read it.

    Raises:
        FlatguardError: one of its kinds, with one line that says what to do.

    Cost: for each step one backward pass and as many forward passes as the attack has candidates;
        the measurement is one forward pass more.

    Example:
        >>> pairs = [("Say hello.", "Sure, here is")]
        >>> run = flatguard.evaluate_prompts("smollm2", pairs, steps=20)  # doctest: +SKIP
    """
    progress = progress or default_progress()
    named = model if isinstance(model, str) else model.name
    pairs = tuple(
        one if isinstance(one, PromptAndTarget) else PromptAndTarget(prompt=one[0], target=one[1])
        for one in prompts
    )
    fields = {"model": named, "attack": attack, "prompts": pairs, **options}
    request = validated(PromptRequest, fields)
    find_prompt_attack(request.attack)  # before the model is loaded
    folder = named_folder(named, attack) if out is None else _local(out)
    check_new(Folder(folder))
    with torch_threads(request.threads or torch.get_num_threads()):
        loaded = load_language_model(model) if isinstance(model, str) else model
        context = resolve_prompts(request, loaded)
        run = create_prompt_run(folder, manifest_of(context, command))
        return _carry_out(context, run, ComputeBudget(request.limits), progress)


@own_process()
def resume_prompts(
    run: PromptRun | str | Path,
    *,
    model: LanguageModel | None = None,
    progress: ProgressReporter | None = None,
) -> PromptRun:
    """Take the steps that a run on prompts lacks, none twice; then judge it.

    The evidence is the same as if the run had never been interrupted.

    Args:
        run: the run, or its folder.
        model: the run's model, where it came from Python.
        progress: receives progress updates; None shows a bar in a notebook, else nothing.

    Raises:
        UsageError: weights, tokens, versions or device are not those that the run began with.
        RunFolderError: no such run, or it is damaged.
    """
    found = load_prompt_run(run.path if isinstance(run, PromptRun) else run)
    found.sweep()
    progress, manifest = progress or default_progress(), found.manifest
    spent = sum(one.forwards for steps in found.steps for one in steps)
    with torch_threads(manifest.device["threads"]):
        loaded = load_language_model(manifest.model.name) if model is None else model
        context = resolve_prompts(found.request, loaded)
        check_same_run(context, found)
        done, planned = sum(map(len, found.steps)), len(found.steps) * (found.request.steps + 1)
        progress.log(f"{done} of {planned} steps were done before")
        return _carry_out(context, found, ComputeBudget(found.request.limits, spent), progress)


def _carry_out(
    context: PromptContext, run: PromptRun, budget: ComputeBudget, progress: ProgressReporter
) -> PromptRun:
    """Attack each prompt, ask the model, judge and report."""
    again = f"flatguard resume {quoted(run.path)}"
    left = sum(context.request.steps + 1 - len(steps) for steps in run.steps)
    progress.log(_described(context))
    progress.stage(f"attack {context.request.attack}", left, unit="steps")
    try:
        for number in range(len(context.prompts)):
            attack_prompt(context, run, number, budget, progress)
            now = load_prompt_run(run.path)
            if now.answers[number] is None:
                gather_answers(context, now, number)
                progress.log(_result(now, number))
    except BudgetSpent as error:
        progress.log(f"{error}; {again} goes on, with a budget of its own")
    except KeyboardInterrupt:
        progress.log(f"{again} goes on")
        raise
    except FlatguardError as error:
        error.args = (f"{error}; what was recorded is kept, and {again} goes on",)
        raise
    finished = load_prompt_run(run.path)
    write_prompt_report(finished)
    return finished


def _described(context: PromptContext) -> str:
    model, request = context.model, context.request
    prompts, steps = counted(len(context.prompts), "prompt"), counted(request.steps, "step")
    return (
        f"{model.name} ({model.source}); {prompts}; {request.attack} with "
        f"{context.attack.expected_forwards() - 1} candidates a step, {steps}; "
        f"{model.head.out_features:,} tokens; {model.device}; seed {request.seed}"
    )


def _result(run: PromptRun, number: int) -> str:
    first, *_, last = [one.accepted for one in run.steps[number]]
    return (
        f"prompt {number + 1} of {len(run.steps)}: loss {first.loss:.3f} → {last.loss:.3f}, "
        f"log κ {first.log_mean_kappa:.3f} → {last.log_mean_kappa:.3f}"
    )


def _local(out: str | Path) -> Path:
    if "://" in str(out):
        raise UsageError(f"--out {out}: a run on prompts is kept in a local folder")
    return Path(out)
