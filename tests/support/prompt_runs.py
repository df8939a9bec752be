"""Runs on prompts whose suffixes a test chooses: all is real but the search."""

from collections.abc import Sequence
from pathlib import Path

from support.language_models import tiny

from flatguard.checks.prompt_answers import gather_answers
from flatguard.execution.prompts import PromptContext, manifest_of, resolve_prompts
from flatguard.prompt_request import PromptAndTarget, PromptRequest
from flatguard.recording.prompt_recorder import accepted_suffix
from flatguard.runs.prompt_facts import StepFacts
from flatguard.runs.prompt_run import PromptRun, create_prompt_run, load_prompt_run


def context_of(pairs: Sequence[tuple[str, str]], steps: int = 1, **more: object) -> PromptContext:
    chosen = tuple(PromptAndTarget(prompt=prompt, target=target) for prompt, target in pairs)
    request = PromptRequest(
        model="tiny", prompts=chosen, steps=steps,
        attack_args={"search_width": 4, "topk": 8}, **{"generations": 3, **more},
    )  # fmt: skip
    return resolve_prompts(request, tiny())


def run_of(
    folder: Path, context: PromptContext, suffixes: Sequence[Sequence[Sequence[int]]]
) -> PromptRun:
    """A run whose prompts accepted these suffixes, in order; a finished prompt has its answers."""
    run = create_prompt_run(folder, manifest_of(context, ("test",)))
    for number, taken in enumerate(suffixes):
        for step, suffix in enumerate(taken):
            accepted = accepted_suffix(context.prompts[number], step, tuple(suffix))
            identity = run.manifest.identity
            run.write_step(StepFacts(run=identity, prompt=number, forwards=1, accepted=accepted))
        if len(taken) == context.request.steps + 1:
            gather_answers(context, load_prompt_run(folder), number)
    return load_prompt_run(folder)
