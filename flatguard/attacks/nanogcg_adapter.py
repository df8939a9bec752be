"""nanogcg: the attack GCG of Zou et al. (2023), one step at a time.

Each step is the library's own `GCG.run` with `num_steps=1`. It begins at the tokens that were
accepted last, not at their text, which could be encoded differently. `_WrittenOut` gives it the
prompt as flatguard renders it: the library removes the text of the beginning-of-sequence token
everywhere in the template, and that of SmolLM2 begins every message.

Releases from 0.2.3 on are the same algorithm. 0.3.0 requires an old transformers without need; see
`overrides.txt`. Its prefix cache fails with transformers 5, so it is off.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import torch

from flatguard.attacks.attack import AttackInfo, parameters_of
from flatguard.attacks.prompt_attack import Accepted, PromptAttack
from flatguard.environment.requirements import needed
from flatguard.errors import AttackError
from flatguard.targets.language_model import LanguageModel
from flatguard.targets.prompt_tokens import PromptTokens

_NAME = "gcg"
_MARK = "{optim_str}"
_OURS = {
    "num_steps", "seed", "verbosity", "use_prefix_cache", "early_stop", "buffer_size",
    "probe_sampling_config", "add_space_before_target",
}  # fmt: skip
"""Arguments that are not a user's: the steps and the seed are the run's, and a step has no memory
but the accepted suffix."""
_FIRST = " x" * 20
"""The library's first suffix after a space, so that its first token does not join the prompt's
last."""


@cache
def infos() -> dict[str, AttackInfo]:
    """The attacks of this library, by name.

    Raises:
        EnvironmentProblem: nanogcg is not installed.
    """
    with needed("nanogcg", "llm", "--attack gcg"):
        from nanogcg.gcg import GCGConfig
    parameters = parameters_of(GCGConfig, _OURS)
    first = parameters["optim_str_init"].replace(default=_FIRST)
    return {_NAME: AttackInfo(_NAME, "nanogcg", ("none",), parameters | {"optim_str_init": first})}


def build(info: AttackInfo, model: LanguageModel, args: Mapping[str, Any]) -> PromptAttack:
    """GCG with the library's defaults but for `args`."""
    return _Gcg(info, model, args)


class _Gcg(PromptAttack):
    def __init__(self, info: AttackInfo, model: LanguageModel, args: Mapping[str, Any]):
        super().__init__(info, model, args)
        for name in ("search_width", "topk", "n_replace", "batch_size"):
            value = self.effective_args[name]
            least = isinstance(value, int) and value >= 1
            if not least and not (name == "batch_size" and value is None):
                raise AttackError(f"gcg: expected {name} of at least 1, got {value!r}")
        if self.effective_args["topk"] > model.head.out_features:
            raise AttackError(
                f"gcg: expected topk of at most the vocabulary's {model.head.out_features:,} "
                f"tokens, got {self.effective_args['topk']:,}"
            )
        if not self.first_suffix():
            raise AttackError("gcg: expected a text for optim_str_init, got an empty one")

    def first_suffix(self) -> tuple[int, ...]:
        return tuple(self.model.encode(str(self.effective_args["optim_str_init"])))

    def expected_forwards(self) -> int:
        return int(self.effective_args["search_width"]) + 1

    def _step(self, prompt: PromptTokens, suffix: tuple[int, ...]) -> Accepted:
        from nanogcg.gcg import AttackBuffer

        gcg, accepted = self._gcg, AttackBuffer(0)
        accepted.add(math.inf, torch.tensor([suffix], device=self.model.device))
        gcg.init_buffer = lambda: accepted
        gcg.tokenizer.rendered = prompt.text(_MARK)
        with _counted(self.model.model) as forwards, _frozen_objects():
            gcg.run("", prompt.target_text)
        return Accepted(tuple(accepted.get_best_ids()[0].tolist()), sum(forwards))

    @cached_property
    def _gcg(self) -> Any:
        """Made once: it decodes every token of the vocabulary."""
        from nanogcg.gcg import GCG, GCGConfig

        args = {name: value for name, value in self.args.items() if name != "optim_str_init"}
        config = GCGConfig(num_steps=1, use_prefix_cache=False, verbosity="ERROR", **args)
        return GCG(self.model.model, _WrittenOut(self.model.tokenizer), config)


class _WrittenOut:
    """The tokenizer for a prompt that is rendered already, with all special tokens written out."""

    chat_template = "rendered"
    bos_token = None

    def __init__(self, tokenizer: Any):
        self._tokenizer, self.rendered = tokenizer, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any, **how: Any) -> Any:
        return self._tokenizer(text, **{**how, "add_special_tokens": False})

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        """The rendered prompt, with the library's mark for the suffix."""
        return self.rendered


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Hide the objects of before from the garbage collector, which the library runs twice a step.

    It takes 0.4 s to visit the objects of torch and transformers, more than a small model's step.
    """
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


@contextmanager
def _counted(model: Any) -> Iterator[list[int]]:
    """The number of sequences in each forward pass."""
    found: list[int] = []

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        found.append(len(given["inputs_embeds"]))

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()
