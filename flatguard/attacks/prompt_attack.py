"""The protocol of attacks on a prompt: they search a suffix, one accepted suffix a step.

An adapter builds the library's own object and calls it for one step. What is common (the seed of
each step, quiet libraries, one-line errors) is in `PromptAttack.next_suffix`, which adapters do not
override. A step depends on the accepted suffix and its seed alone, so a run that was stopped goes
on at the suffix that was accepted last, and takes the same steps.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from flatguard.attacks.attack import AttackInfo, check_args
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import kept_state, own_state
from flatguard.errors import (
    AttackError,
    EnvironmentProblem,
    FlatguardError,
    memory_errors,
    one_line,
)
from flatguard.targets.language_model import LanguageModel
from flatguard.targets.prompt_tokens import PromptTokens


@dataclass(frozen=True)
class Accepted:
    """The result of one step.

    Attributes:
        suffix: the tokens that the attack goes on with.
        forwards: sequences that were sent forward for it; one backward pass is not among them.
    """

    suffix: tuple[int, ...]
    forwards: int


class PromptAttack(ABC):
    """An attack on the prompts of one model.

    Args:
        info: the facts about the attack.
        model: the attacked model.
        args: the user's arguments.
    """

    def __init__(self, info: AttackInfo, model: LanguageModel, args: Mapping[str, Any]):
        self.info, self.model = info, model
        self.args = check_args(info, args)

    @property
    def effective_args(self) -> dict[str, Any]:
        """Every argument that a user may set, with its default."""
        empty = inspect.Parameter.empty
        parameters = self.info.parameters.items()
        return {n: p.default for n, p in parameters if p.default is not empty} | self.args

    @abstractmethod
    def first_suffix(self) -> tuple[int, ...]:
        """The suffix before the first step."""

    @abstractmethod
    def expected_forwards(self) -> int:
        """How many sequences one step sends forward at most."""

    @final
    def next_suffix(self, prompt: PromptTokens, suffix: tuple[int, ...], seed: int) -> Accepted:
        """One step of the attack from an accepted suffix.

        Args:
            prompt: the prompt and its target.
            suffix: the accepted one.
            seed: of the step; all random generators are restored afterwards.

        Raises:
            AttackError: the library raises.
            OutOfMemory: the memory is too small for its candidates.
        """
        name = self.info.name
        logging.getLogger(self.info.library).setLevel(logging.ERROR)
        with (
            own_state(),
            kept_state(),
            seeded(seed, self.model.device),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),  # a progress bar for every step
        ):
            try:
                with memory_errors(f"{name} with --attack-arg batch_size={self.batch_size}"):
                    return self._step(prompt, suffix)
            except FlatguardError:
                raise
            except Exception as error:  # a library and a user's model may raise anything
                raise AttackError(
                    f"{name} failed: {type(error).__name__}: {one_line(error)}"
                ) from error

    @property
    def batch_size(self) -> Any:
        """How many candidates are sent forward together, where the attack has such an argument."""
        return self.effective_args.get("batch_size")

    @abstractmethod
    def _step(self, prompt: PromptTokens, suffix: tuple[int, ...]) -> Accepted:
        """Run the library's own step."""


NAMES = ("gcg",)
"""The attacks on prompts."""


def is_prompt_attack(name: str) -> bool:
    """Whether a name is that of an attack on prompts; its library need not be installed."""
    return name.lower() in NAMES


def prompt_attacks() -> list[AttackInfo]:
    """The attacks on prompts whose library is installed."""
    try:
        return [find_prompt_attack(name) for name in NAMES]
    except EnvironmentProblem:
        return []


def find_prompt_attack(name: str) -> AttackInfo:
    """The attack on prompts of this name.

    Raises:
        AttackError: unknown, with the known ones.
        EnvironmentProblem: its library is not installed.
    """
    from flatguard.attacks import nanogcg_adapter

    if not is_prompt_attack(name):
        raise AttackError(
            f"--attack: expected an attack on prompts ({', '.join(NAMES)}), got {name!r}"
        )
    return nanogcg_adapter.infos()[name.lower()]


def build_prompt_attack(name: str, model: LanguageModel, args: Mapping[str, Any]) -> PromptAttack:
    """An attack on prompts that is ready to run.

    Raises:
        AttackError: unknown name or argument.
        EnvironmentProblem: its library is missing.
    """
    from flatguard.attacks import nanogcg_adapter

    return nanogcg_adapter.build(find_prompt_attack(name), model, args)
