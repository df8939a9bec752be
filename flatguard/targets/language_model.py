"""A causal language model with its tokenizer and its proven head.

The head is the final linear layer that gives a logit for each token of the vocabulary; with tied
embeddings its weights are the embeddings. It is proven on a few tokens: the model's logits must be
φ Wᵀ + b of the head's own inputs. So logits that are capped, scaled or processed after the head are
refused, because κ of the head would not be that of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.environment.caller import own_process
from flatguard.errors import ModelError, UsageError
from flatguard.geometry.precision import wide
from flatguard.geometry.sharpness import log_weight_norm_squared
from flatguard.geometry.token_sharpness import TokenGeometry, token_geometry
from flatguard.targets.weights_hash import weights_sha256

_MOST_UNUSED = 0.05
"""Heads have unused rows, because their size is rounded up: 2.4% in DeepSeek, 0.2% in Qwen."""
_PROBE = 16
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_HALF_TOLERANCE = 0.05
"""How far logits may be from φ Wᵀ + b, relative to the largest one."""


@dataclass(frozen=True)
class LanguageModel:
    """What is attacked by a prompt; `language_model` makes and checks it.

    Attributes:
        name: as the user names it.
        source: where it comes from, for the manifest.
        model: of transformers, in eval mode.
        tokenizer: its own.
    """

    name: str
    source: str
    model: Any
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        found: torch.device = self.head.weight.device
        return found

    @property
    def head(self) -> nn.Linear:
        """The final linear layer."""
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    @property
    def longest(self) -> int | None:
        """The most tokens that it takes, or None if its config names no number."""
        found = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) else None

    @cached_property
    def log_weight_norm_squared(self) -> float:
        """log ‖W‖² of the head."""
        return log_weight_norm_squared(self.head.weight)

    @cached_property
    def sha256(self) -> str:
        """The hash of all its weights."""
        return weights_sha256(self.model)

    def to(self, device: torch.device) -> LanguageModel:
        """The same on this device."""
        self.model.to(device)
        return self

    def encode(self, text: str) -> list[int]:
        """The tokens of a text in which special tokens are written out."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(token) for token in ids]

    def decode(self, tokens: list[int]) -> str:
        """The text of these tokens, with special tokens written out."""
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    def geometry(self, before: list[int], target: list[int]) -> TokenGeometry:
        """κ, loss and confidence at each token of a target, after these tokens.

        Cost: a forward pass of one sequence, without padding, and the closed form.
        """
        ids = torch.tensor([before + target], device=self.device)
        with torch.no_grad():
            with self._head_inputs(slice(len(before) - 1, -1)) as seen:
                self.model(input_ids=ids, use_cache=False)
            return token_geometry(
                seen[0][0],
                self.head.weight,
                self.head.bias,
                ids[0, len(before) :],
                self.log_weight_norm_squared,
            )

    @contextmanager
    def _head_inputs(self, places: slice = slice(None)) -> Iterator[list[Tensor]]:
        """The head's inputs at some places of a sequence; it computes nothing at the others."""
        seen: list[Tensor] = []

        def keep(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            seen.append(given[0][:, places].detach())
            return (seen[-1],)

        hook = self.head.register_forward_pre_hook(keep)
        try:
            yield seen
        finally:
            hook.remove()

    def check_head(self) -> None:
        """Prove that the logits are φ Wᵀ + b of the head.

        Raises:
            ModelError: they are not.
        """
        tokens = torch.arange(min(_PROBE, self.head.out_features), device=self.device)[None]
        with torch.no_grad(), self._head_inputs() as seen:
            logits = wide(self.model(input_ids=tokens, use_cache=False).logits)[0]
        if len(seen) != 1:
            raise ModelError(
                f"{self.name}: expected one call of its head for a sequence, got {len(seen)}"
            )
        weight, bias = self.head.weight.detach(), self.head.bias
        expected = wide(seen[0][0]) @ wide(weight).T
        if bias is not None:
            expected = expected + wide(bias.detach())
        off = float((logits - expected).abs().max() / expected.abs().max())
        if not off <= _TOLERANCE.get(weight.dtype, _HALF_TOLERANCE):
            raise ModelError(
                f"{self.name}: its logits are not those of its final linear layer (they differ by "
                f"{off:.1%} of the largest): it scales or changes them afterwards, and κ would "
                "be wrong; name a model that does not"
            )


@own_process()
def language_model(model: Any, tokenizer: Any, name: str, source: str) -> LanguageModel:
    """A language model from its parts, checked.

    Args:
        model: a causal language model of transformers; set to eval mode.
        tokenizer: its tokenizer.
        name: in messages and manifests.
        source: where it comes from.

    Raises:
        UsageError: there is no tokenizer.
        ModelError: it has no linear head, another vocabulary than its tokenizer, or logits that
            are not those of its head.
    """
    if tokenizer is None:
        raise UsageError(
            f"{name} has no tokenizer; save it beside the model with tokenizer.save_pretrained"
        )
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    if not isinstance(head, nn.Linear):
        got = "none" if head is None else type(head).__name__
        raise ModelError(
            f"{name} ({type(model).__name__}) has no linear head over its vocabulary (got {got}); "
            "name a causal language model, such as LlamaForCausalLM"
        )
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        raise ModelError(
            f"{name} caps its logits (final_logit_softcapping {cap:g}): κ has no closed form for "
            "it; name a model without, such as one of the Llama or Qwen architectures"
        )
    rows, tokens = head.out_features, len(tokenizer)
    if tokens > rows or rows - tokens > max(_MOST_UNUSED * rows, 1):
        raise ModelError(
            f"{name}: expected a tokenizer of the model's vocabulary of {rows:,} tokens, got one "
            f"of {tokens:,}; use the tokenizer that belongs to the model"
        )
    made = LanguageModel(name, source, model.eval(), tokenizer)
    made.check_head()
    return made
