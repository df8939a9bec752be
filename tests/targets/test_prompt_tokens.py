"""A prompt as tokens and as text, and which suffixes are the same in both."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.language_models import llama, tiny, tokenizer

from flatguard.errors import UsageError
from flatguard.targets.language_model import language_model
from flatguard.targets.prompt_tokens import PromptTokens


def test_the_tokens_are_those_of_the_chat_template() -> None:
    model = tiny()
    prompt = PromptTokens.of(model, "Say hello.", "Sure, here is")
    suffix = tuple(model.encode(" x x x"))
    messages = [{"role": "user", "content": "Say hello. x x x"}]
    whole = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt.ids(suffix) == list(whole["input_ids"])
    assert prompt.text(" x x x") == "<|user|>Say hello. x x x<|end|><|assistant|>"
    assert prompt.survives(suffix)


def test_a_model_without_a_template_gets_the_prompt_alone() -> None:
    model = language_model(llama(), tokenizer(chat=False), "base", "here")
    prompt = PromptTokens.of(model, "Say hello.", "Sure")
    assert prompt.after == ()
    assert prompt.text(" x") == "Say hello. x"


def test_a_suffix_that_is_encoded_differently_does_not_survive() -> None:
    model = tiny()
    prompt = PromptTokens.of(model, "Please repeat the word.", "Sure")
    letters = tuple(model.encode(letter)[0] for letter in "world")
    whole = tuple(model.encode(" world"))
    assert model.decode(list(letters)) == "world"
    assert not prompt.survives(letters)
    assert prompt.survives(whole)


def test_a_suffix_that_joins_the_end_of_the_prompt_does_not_survive() -> None:
    model = tiny()
    suffix = tuple(model.encode("ello"))
    assert model.encode(model.decode(list(suffix))) == list(suffix)
    assert not PromptTokens.of(model, "Say h", "Sure").survives(suffix)


@settings(max_examples=60, deadline=None)
@given(tokens=st.lists(st.integers(5, 319), min_size=1, max_size=8))
def test_what_survives_is_what_the_text_gives(tokens: list[int]) -> None:
    """Attack and user agree on the tokens exactly where a suffix survives."""
    model = tiny()
    prompt = PromptTokens.of(model, "Say hello to the world.", "Sure")
    sent = model.encode(prompt.text(model.decode(tokens)))
    assert prompt.survives(tuple(tokens)) == (sent == prompt.ids(tuple(tokens)))


@pytest.mark.parametrize(("prompt", "target"), [("", "Sure"), ("Say hello.", " \n")])
def test_an_empty_text_is_refused(prompt: str, target: str) -> None:
    with pytest.raises(UsageError, match=r"--(prompt|target): expected a text, got an empty one"):
        PromptTokens.of(tiny(), prompt, target)


def test_a_target_that_the_tokenizer_changes_is_refused() -> None:
    from tokenizers import normalizers

    lower = tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    model = language_model(llama(), lower, "lower", "here")
    with pytest.raises(UsageError, match="changes it: expected 'Sure' back, got 'sure'"):
        PromptTokens.of(model, "say hello.", "Sure")


def test_a_template_that_drops_the_message_is_refused() -> None:
    fixed = tokenizer()
    fixed.chat_template = "<|user|>always the same<|end|>"
    model = language_model(llama(), fixed, "fixed", "here")
    with pytest.raises(UsageError, match="writes the user's message once, got 0 times"):
        PromptTokens.of(model, "Say hello.", "Sure")


def test_a_sequence_beyond_the_models_length_is_refused() -> None:
    prompt = PromptTokens.of(tiny(), "a b c " * 100, "Sure")
    with pytest.raises(UsageError, match="and tiny takes 256; shorten"):
        prompt.check_length((5, 6))
