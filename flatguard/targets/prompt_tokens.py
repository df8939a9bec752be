"""A prompt with a place for a suffix, and a target, as text and as tokens.

An attack optimises tokens: a suffix between the tokens of the prompt and those of the target. A
user sends text. `survives` compares the two: whether the text of a suffix, inside the whole prompt,
is encoded as the tokens that the attack optimised. Tokens at the seams merge, and some tokens
decode to a text that is encoded differently, so many suffixes do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from flatguard.errors import UsageError
from flatguard.targets.language_model import LanguageModel

_MARK = "\x00suffix\x00"
"""Stands for the suffix while the chat template is rendered; no text holds it."""


@dataclass(frozen=True)
class PromptTokens:
    """One prompt and its target for one model; `of` makes and checks it.

    Attributes:
        model: whose tokens these are.
        prompt: what the user asks.
        before, after: the tokens around the suffix, with those of the chat template.
        target_text, target: what the model is made to answer, and its tokens.
    """

    model: LanguageModel
    prompt: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    target_text: str
    target: tuple[int, ...]

    @classmethod
    def of(cls, model: LanguageModel, prompt: str, target: str) -> PromptTokens:
        """The prompt in the model's chat template, or alone if the model has none.

        Raises:
            UsageError: prompt or target is empty, or the tokenizer changes the target.
        """
        for name, text in (("--prompt", prompt), ("--target", target)):
            if not text.strip():
                raise UsageError(f"{name}: expected a text, got an empty one")
        tokens = model.encode(target)
        again = model.decode(tokens)
        if again != target:
            raise UsageError(
                f"--target: the tokenizer of {model.name} changes it: expected {target!r} back, "
                f"got {again!r}; give a target that it keeps"
            )
        before, found, after = _rendered(model, prompt + _MARK).partition(_MARK)
        if not found or _MARK in after:
            raise UsageError(
                f"{model.name}: expected a chat template that writes the user's message once, got "
                f"{(found + after).count(_MARK)} times"
            )
        parts = (tuple(model.encode(before)), tuple(model.encode(after)))
        return cls(model, prompt, *parts, target, tuple(tokens))

    def ids(self, suffix: tuple[int, ...]) -> list[int]:
        """The tokens before the answer, as the attack optimises them."""
        return [*self.before, *suffix, *self.after]

    def text(self, suffix: str) -> str:
        """The text before the answer, as the model gets it where a user sends prompt and suffix."""
        return _rendered(self.model, self.prompt + suffix)

    def survives(self, suffix: tuple[int, ...]) -> bool:
        """Whether decoding a suffix and encoding the whole text gives the same tokens again."""
        text = self.model.decode(list(suffix))
        return self.model.encode(self.text(text)) == self.ids(suffix)

    def check_length(self, suffix: tuple[int, ...], more: int = 0) -> None:
        """Refuse a sequence that is longer than the model takes.

        Args:
            suffix: its tokens.
            more: tokens that are generated beyond the target's.

        Raises:
            UsageError: with both lengths.
        """
        needed = len(self.ids(suffix)) + len(self.target) + more
        longest = self.model.longest
        if longest is not None and needed > longest:
            raise UsageError(
                f"--prompt: prompt, suffix and answer have {needed:,} tokens, and "
                f"{self.model.name} takes {longest:,}; shorten the prompt or the target"
            )


def _rendered(model: LanguageModel, message: str) -> str:
    """A user's message in the chat template, special tokens written out."""
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        start = [int(token) for token in tokenizer("")["input_ids"]]
        return model.decode(start) + message
    messages = [{"role": "user", "content": message}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
