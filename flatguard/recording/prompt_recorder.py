"""Records the suffixes that an attack on a prompt accepts: the attack may be anybody's loop.

    recorder = flatguard.PromptRecorder(model, "Say hello.", "Sure, here is")
    for step in range(20):
        suffix = my_attack(suffix)
        recorder.accept(suffix)
    recorder.trajectory()

Only accepted suffixes are measured, one forward pass each. Candidates are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flatguard.environment.torch_state import own_state
from flatguard.errors import ModelError
from flatguard.geometry.token_sharpness import log_mean_kappa
from flatguard.targets.language_model import LanguageModel
from flatguard.targets.prompt_tokens import PromptTokens

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "step", "loss", "log_kappa", "confidence", "claimed", "survives", "suffix",
)  # fmt: skip
"""Of a trajectory."""


@dataclass(frozen=True)
class AcceptedSuffix:
    """A suffix that an attack accepted, and the geometry at each token of the target.

    Attributes:
        step: 0 is the suffix before the first step.
        suffix: its tokens; `text` is what they decode to.
        survives: whether the text is encoded as the same tokens inside the prompt.
        log_kappa: log κ at each token of the target.
        losses: $-\\log p$ of each token of the target, in nats.
        confidences: the largest probability at each token.
        predicted: the most likely token at each token of the target.
        claimed: whether each target token is the most likely one, which is the attack's success.
    """

    step: int
    suffix: tuple[int, ...]
    text: str
    survives: bool
    log_kappa: tuple[float, ...]
    losses: tuple[float, ...]
    confidences: tuple[float, ...]
    predicted: tuple[int, ...]
    claimed: bool

    @property
    def loss(self) -> float:
        """The mean over the target's tokens: what the attack minimises."""
        return sum(self.losses) / len(self.losses)

    @property
    def log_mean_kappa(self) -> float:
        """log κ of the mean loss."""
        return log_mean_kappa(self.log_kappa)


class PromptRecorder:
    """Measures each accepted suffix of one prompt.

    Args:
        model: as `load_language_model` or `language_model` makes it.
        prompt: what a user asks; the suffix follows it directly.
        target: what the attack makes the model answer.

    Attributes:
        prompt: the tokens of both.
        steps: the accepted suffixes, in order.

    Raises:
        UsageError: prompt or target is empty, or the tokenizer changes the target.
    """

    def __init__(self, model: LanguageModel, prompt: str, target: str):
        self.prompt = PromptTokens.of(model, prompt, target)
        self.steps: list[AcceptedSuffix] = []

    def accept(self, suffix: str | Sequence[int]) -> AcceptedSuffix:
        """Measure a suffix, given as text or as tokens, and keep it as the next step.

        Raises:
            UsageError: the sequence is longer than the model takes.
            ModelError: the model's logits are not finite.
        """
        encode = self.prompt.model.encode
        tokens = encode(suffix) if isinstance(suffix, str) else [int(token) for token in suffix]
        step = accepted_suffix(self.prompt, len(self.steps), tuple(tokens))
        self.steps.append(step)
        return step

    def trajectory(self) -> pd.DataFrame:
        """A row for each step: `COLUMNS`; κ is that of the mean loss over the target's tokens."""
        return to_trajectory(self.steps)


@own_state()
def accepted_suffix(prompt: PromptTokens, step: int, suffix: tuple[int, ...]) -> AcceptedSuffix:
    """The geometry at one suffix.

    Raises:
        UsageError: the sequence is longer than the model takes.
        ModelError: the model's logits are not finite.
    """
    prompt.check_length(suffix)
    found = prompt.model.geometry(prompt.ids(suffix), list(prompt.target))
    if not bool(found.loss.isfinite().all() and found.log_kappa.isfinite().all()):
        raise ModelError(
            f"{prompt.model.name} gives logits that are not finite for the target; load it in "
            "float32, or look for NaN in its weights"
        )
    predicted = tuple(found.predicted.tolist())
    return AcceptedSuffix(
        step,
        suffix,
        prompt.model.decode(list(suffix)),
        prompt.survives(suffix),
        tuple(found.log_kappa.tolist()),
        tuple(found.loss.tolist()),
        tuple(found.confidence.tolist()),
        predicted,
        predicted == prompt.target,
    )


def to_trajectory(steps: Sequence[AcceptedSuffix]) -> pd.DataFrame:
    """The steps as a table of `COLUMNS`."""
    import pandas as pd

    rows = [
        (
            one.step, one.loss, one.log_mean_kappa, math.fsum(one.confidences) / len(one.losses),
            one.claimed, one.survives, one.text,
        )
        for one in steps
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))
