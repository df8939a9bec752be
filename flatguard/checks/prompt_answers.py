"""What a model answers to an attacked prompt, from the text as a user would send it.

The attack optimises tokens and looks at the target's probabilities. Here the suffix is decoded, the
whole text is encoded again, and the model generates: greedily, and several times at temperature 1.
It also answers the prompt without a suffix, because a model that gives the target anyway was not
attacked. Gathers only; `prompt_verdict` judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.execution.prompts import SPARE, PromptContext
from flatguard.request import derive_seed
from flatguard.runs.prompt_facts import AnswerFacts, StepFacts
from flatguard.runs.prompt_run import PromptRun
from flatguard.targets.prompt_tokens import PromptTokens


def gather_answers(context: PromptContext, run: PromptRun, number: int) -> None:
    """Ask the model, and add its answers to the evidence of one prompt.

    Cost: greedily two generations, and the sampled ones as one batch.
    """
    prompt, best = context.prompts[number], best_step(run.steps[number])
    text = prompt.text(best.accepted.text)
    seed = derive_seed(context.request.seed, number, "answers")
    with own_state(), seeded(seed, context.model.device):
        facts = AnswerFacts(
            run=run.manifest.identity,
            prompt=number,
            step=best.accepted.step,
            greedy=_answers(prompt, text)[0],
            sampled=tuple(_answers(prompt, text, context.request.generations)),
            without_suffix=_answers(prompt, prompt.text(""))[0],
        )
    run.write_answers(facts)


def best_step(steps: Sequence[StepFacts]) -> StepFacts:
    """The step that GCG returns: the first of those with the lowest loss."""
    return min(steps, key=lambda one: one.accepted.loss)


def _answers(prompt: PromptTokens, text: str, sampled: int = 0) -> list[str]:
    """The greedy answer to a text, or so many sampled ones, without special tokens."""
    from transformers import GenerationConfig

    model = prompt.model
    ids = torch.tensor([model.encode(text)], device=model.device)
    config = GenerationConfig(
        max_new_tokens=len(prompt.target) + SPARE,
        do_sample=sampled > 0,
        num_return_sequences=max(sampled, 1),
        eos_token_id=model.tokenizer.eos_token_id,
        pad_token_id=model.tokenizer.pad_token_id or model.tokenizer.eos_token_id or 0,
        **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sampled else {}),
    )
    with torch.no_grad(), _plain(model.model):
        found = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    new = found[:, ids.shape[1] :].tolist()
    return [str(text) for text in model.tokenizer.batch_decode(new, skip_special_tokens=True)]


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Without the model's own generation config, which fills what ours leaves open.

    It may penalise repetitions or forbid tokens; the target's probability is the plain model's.
    """
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
