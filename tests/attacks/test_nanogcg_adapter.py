"""GCG by single steps is the library's GCG."""

from typing import Any

import pytest
import torch
from support.language_models import llama, tiny, tokenizer

from flatguard.attacks.prompt_attack import build_prompt_attack
from flatguard.environment.randomness import seeded
from flatguard.targets.language_model import language_model
from flatguard.targets.prompt_tokens import PromptTokens

nanogcg = pytest.importorskip("nanogcg")
CPU = torch.device("cpu")
ARGS: dict[str, Any] = {"search_width": 12, "topk": 24}


def test_each_step_is_the_librarys_own() -> None:
    """From the same suffix and seed, `nanogcg.run` returns the same string."""
    model = tiny()
    attack = build_prompt_attack("gcg", model, ARGS)
    prompt = PromptTokens.of(model, "Say hello to the world.", "Sure, here is")
    suffix = attack.first_suffix()
    for step in range(4):
        config = nanogcg.GCGConfig(
            num_steps=1, optim_str_init=model.decode(list(suffix)), use_prefix_cache=False,
            verbosity="ERROR", **ARGS,
        )  # fmt: skip
        with seeded(step, CPU):
            expected = nanogcg.run(
                model.model, model.tokenizer, "Say hello to the world.", "Sure, here is", config
            )
        suffix = attack.next_suffix(prompt, suffix, step).suffix
        assert model.decode(list(suffix)) == expected.strings[-1]
        loss = float(model.geometry(prompt.ids(suffix), list(prompt.target)).loss.mean())
        assert loss == pytest.approx(expected.losses[-1], rel=1e-4)


def test_a_step_counts_the_sequences_that_it_sends_forward() -> None:
    model = tiny()
    attack = build_prompt_attack("gcg", model, ARGS | {"filter_ids": False})
    prompt = PromptTokens.of(model, "Say hello to the world.", "Sure")
    found = attack.next_suffix(prompt, attack.first_suffix(), 0)
    assert found.forwards == attack.expected_forwards() == 13
    assert len(found.suffix) == len(attack.first_suffix())


def test_a_template_that_begins_each_message_with_the_first_token_stays_whole() -> None:
    """The library removes the text of that token everywhere; SmolLM2 has it before each message."""
    made = tokenizer()
    made.chat_template = (
        "<|begin|>system<|end|>{% for m in messages %}<|begin|>{{ m['content'] }}<|end|>"
        "{% endfor %}<|begin|>"
    )
    model = language_model(llama(), made, "mine", "here")
    attack = build_prompt_attack("gcg", model, ARGS)
    prompt = PromptTokens.of(model, "Say hello.", "Sure")
    assert prompt.before.count(0) == 2
    seen = []
    first = model.model.get_input_embeddings().weight[0]
    hook = model.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["inputs_embeds"].detach()), with_kwargs=True
    )
    attack.next_suffix(prompt, attack.first_suffix(), 0)
    hook.remove()
    assert all(int((row == first).all(dim=1).sum()) == 3 for batch in seen for row in batch)


def test_the_suffix_goes_on_at_its_tokens_and_not_at_its_text() -> None:
    """Tokens that no text gives are kept, but for the one that a step replaces."""
    model = tiny()
    attack = build_prompt_attack("gcg", model, ARGS | {"filter_ids": False})
    prompt = PromptTokens.of(model, "Please repeat the word.", "Sure")
    letters = tuple(model.encode(letter)[0] for letter in "worldhello")
    found = attack.next_suffix(prompt, letters, 0).suffix
    assert sum(one != two for one, two in zip(found, letters, strict=True)) == 1
