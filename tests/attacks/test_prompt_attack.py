"""Attacks on prompts: their names, their arguments, and what every one of them keeps."""

import random

import numpy as np
import pytest
import torch
from support.language_models import tiny

from flatguard.attacks.prompt_attack import build_prompt_attack, find_prompt_attack
from flatguard.errors import AttackError
from flatguard.targets.prompt_tokens import PromptTokens

pytest.importorskip("nanogcg")


def test_names_and_arguments_are_checked() -> None:
    assert find_prompt_attack("GCG").library == "nanogcg"
    with pytest.raises(AttackError, match=r"expected an attack on prompts \(gcg\), got 'gcq'"):
        find_prompt_attack("gcq")
    for args, said in (
        ({"width": 3}, "gcg has no argument 'width'"),
        ({"num_steps": 3}, "gcg has no argument 'num_steps'"),
        ({"search_width": 0}, "expected search_width of at least 1, got 0"),
        ({"batch_size": "many"}, "expected batch_size of at least 1"),
        ({"topk": 10_000}, "expected topk of at most the vocabulary's 320 tokens"),
        ({"optim_str_init": ""}, "expected a text for optim_str_init"),
    ):
        with pytest.raises(AttackError, match=said):
            build_prompt_attack("gcg", tiny(), args)


def test_a_step_leaves_generators_settings_and_streams(capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    attack = build_prompt_attack("gcg", model, {"search_width": 4, "topk": 8})
    prompt = PromptTokens.of(model, "Say hello.", "Sure")
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    attack.next_suffix(prompt, attack.first_suffix(), 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (np.random.get_state()[1].tolist(), random.getstate())
    assert all(weight.grad is None for weight in model.model.parameters())
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_an_error_of_the_library_is_one_line() -> None:
    model = tiny()
    # Every candidate of so short a suffix is filtered: no text gives these two tokens again.
    attack = build_prompt_attack("gcg", model, {"search_width": 1, "topk": 1})
    prompt = PromptTokens.of(model, "Say hello.", "Sure")
    letters = tuple(model.encode(letter)[0] for letter in "world hello answer")
    with pytest.raises(AttackError, match="gcg failed: RuntimeError: No token sequences"):
        attack.next_suffix(prompt, letters, 0)
