"""Steps are taken once, in order, each after its own seed; what changed is refused."""

from pathlib import Path

import pytest
from support.language_models import llama, tiny, tokenizer
from support.prompt_runs import context_of

from flatguard.attacks.prompt_attack import build_prompt_attack
from flatguard.errors import BudgetSpent, UsageError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.progress import Silent
from flatguard.execution.prompts import (
    PromptContext,
    attack_prompt,
    check_same_run,
    manifest_of,
    resolve_prompts,
)
from flatguard.request import NO_LIMITS, Limits, derive_seed
from flatguard.runs.prompt_run import PromptRun, create_prompt_run, load_prompt_run
from flatguard.targets.language_model import language_model

pytest.importorskip("nanogcg")
PAIR = ("Say hello to the world.", "Sure, here is")


def attacked(folder: Path, context: PromptContext, limits: Limits = NO_LIMITS) -> PromptRun:
    if not folder.exists():
        create_prompt_run(folder, manifest_of(context, ()))
    attack_prompt(context, load_prompt_run(folder), 0, ComputeBudget(limits), Silent())
    return load_prompt_run(folder)


def test_each_step_follows_from_the_one_before(tmp_path: Path) -> None:
    context = context_of([PAIR], steps=3)
    run = attacked(tmp_path / "run", context)
    taken = [one.accepted.suffix for one in run.steps[0]]
    assert taken[0] == context.attack.first_suffix()
    for step in range(1, 4):
        seed = derive_seed(0, 0, f"step {step}")
        again = build_prompt_attack("gcg", tiny(), context.request.attack_args)
        found = again.next_suffix(context.prompts[0], taken[step - 1], seed)
        assert found.suffix == taken[step]
        assert run.steps[0][step].forwards == found.forwards + 1


def test_a_budget_ends_between_steps_and_the_rest_is_the_same(tmp_path: Path) -> None:
    context = context_of([PAIR], steps=4)
    whole = attacked(tmp_path / "whole", context)
    with pytest.raises(BudgetSpent, match="--max-forwards"):
        attacked(tmp_path / "parts", context, Limits(max_forwards=14))
    before = load_prompt_run(tmp_path / "parts").steps[0]
    assert 1 <= len(before) < 5
    assert sum(one.forwards for one in before) <= 14
    assert attacked(tmp_path / "parts", context).steps == whole.steps


def test_another_model_or_prompt_is_refused(tmp_path: Path) -> None:
    run = attacked(tmp_path / "run", context_of([PAIR], steps=1))
    check_same_run(context_of([PAIR], steps=1), run)
    other = language_model(llama(seed=1), tokenizer(), "tiny", "random weights")
    with pytest.raises(UsageError, match="was begun with other weights"):
        check_same_run(resolve_prompts(run.request, other), run)
    changed = tokenizer()
    changed.chat_template = "<|user|>{{ messages[0]['content'] }}"
    other = language_model(llama(), changed, "tiny", "random weights")
    with pytest.raises(UsageError, match="other tokens of its prompts"):
        check_same_run(resolve_prompts(run.request, other), run)


def test_a_prompt_that_is_too_long_is_refused_before_the_first_step() -> None:
    with pytest.raises(UsageError, match="tiny takes 256"):
        context_of([("a b c " * 100, "Sure")])
