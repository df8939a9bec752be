"""Attacks prompts step by step; each accepted suffix is measured and written before the next.

A step depends on the suffix before it and on a seed of its own, so a run that was stopped goes on
at its last accepted suffix and takes the same steps as if it had never been stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from flatguard.attacks.prompt_attack import PromptAttack, build_prompt_attack
from flatguard.environment.devices import choose_device, device_facts
from flatguard.errors import UsageError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.software import check_same, versions
from flatguard.prompt_request import PromptRequest
from flatguard.recording.prompt_recorder import accepted_suffix
from flatguard.request import derive_seed
from flatguard.runs.prompt_facts import LanguageModelFacts, PromptManifest, PromptPlan, StepFacts
from flatguard.runs.prompt_run import PromptRun
from flatguard.targets.language_model import LanguageModel
from flatguard.targets.prompt_tokens import PromptTokens

SPARE = 8
"""An answer may have this many tokens more than the target: another spelling of it is as good."""
_PACKAGES = ("nanogcg", "gguf")


@dataclass(frozen=True)
class PromptContext:
    """What an attack on prompts needs, loaded.

    Attributes:
        request: with its device.
        attack: of the request, for its model.
        prompts: the tokens of its prompts.
    """

    request: PromptRequest
    attack: PromptAttack
    prompts: tuple[PromptTokens, ...]

    @property
    def model(self) -> LanguageModel:
        """The attacked model."""
        return self.attack.model


def resolve_prompts(request: PromptRequest, model: LanguageModel) -> PromptContext:
    """Load nothing, but check everything: the attack, its arguments, and each prompt.

    Raises:
        AttackError: an unknown attack or argument.
        UsageError: a prompt is empty or too long, or the tokenizer changes a target.
        EnvironmentProblem: no such device, or the attack's library is missing.
    """
    device = choose_device(request.device)
    attack = build_prompt_attack(request.attack, model.to(device), request.attack_args)
    prompts = tuple(PromptTokens.of(model, one.prompt, one.target) for one in request.prompts)
    for prompt in prompts:
        prompt.check_length(attack.first_suffix(), SPARE)
    request = request.model_copy(update={"device": str(device)})
    return PromptContext(request, attack, prompts)


def manifest_of(context: PromptContext, command: Sequence[str]) -> PromptManifest:
    """The manifest of a new run."""
    model = context.model
    facts = LanguageModelFacts(
        name=model.name,
        source=model.source,
        weights_sha256=model.sha256,
        vocabulary=model.head.out_features,
        features=model.head.in_features,
        tied=model.head.weight is model.model.get_input_embeddings().weight,
        log_weight_norm_squared=model.log_weight_norm_squared,
    )
    return PromptManifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
        request=context.request,
        attack_args=context.attack.effective_args,
        model=facts,
        plans=tuple(
            PromptPlan(before=p.before, after=p.after, target=p.target) for p in context.prompts
        ),
        versions=versions(_PACKAGES),
        device=device_facts(model.device),
    ).identified()


def check_same_run(context: PromptContext, run: PromptRun) -> None:
    """Refuse to resume a run with another model, tokenizer, software or device.

    Raises:
        UsageError: names the difference.
    """
    before = run.manifest
    now = manifest_of(context, ())
    check_same(
        str(run.path),
        before.versions,
        now.versions,
        before.device,
        torch.device(context.model.device),
    )
    for what, one, other in (
        ("weights", before.model.weights_sha256, now.model.weights_sha256),
        ("tokens of its prompts", before.plans, now.plans),
        ("arguments of the attack", before.attack_args, now.attack_args),
    ):
        if one != other:
            raise UsageError(
                f"{run.path} was begun with other {what}; resume it with the model that it was "
                "begun with, or start a new run"
            )


def attack_prompt(
    context: PromptContext,
    run: PromptRun,
    number: int,
    compute_budget: ComputeBudget,
    progress: ProgressReporter,
) -> None:
    """Take the steps that a prompt of a run lacks.

    Raises:
        AttackError, ModelError: from the attack and the model; the steps before it are kept.
        BudgetSpent: the compute budget is spent; the steps before it are kept.
    """
    prompt, attack = context.prompts[number], context.attack
    done = run.steps[number]
    suffix = done[-1].accepted.suffix if done else attack.first_suffix()
    for step in range(len(done), context.request.steps + 1):
        forwards = 0
        if step:
            most = attack.expected_forwards() + 1
            compute_budget.spend(most)
            seed = derive_seed(context.request.seed, number, f"step {step}")
            found = attack.next_suffix(prompt, suffix, seed)
            suffix, forwards = found.suffix, found.forwards
            compute_budget.refund(most - forwards - 1)
        else:
            compute_budget.spend(1)
        accepted = accepted_suffix(prompt, step, suffix)
        run.write_step(
            StepFacts(
                run=run.manifest.identity,
                prompt=number,
                forwards=forwards + 1,
                accepted=accepted,
            )
        )
        progress.advanced(1)
