r"""Randomised smoothing: the majority vote of a base classifier under Gaussian noise, or none.

A smoothed classifier answers with the class that most of $N$ noisy copies of an image get, and
abstains where the first class leads the second by too little to tell them apart: where the
two-sided exact binomial test of their votes has $p > \alpha$ (Cohen et al. 2019, PREDICT).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.targets.outputs import Reading, UnknownOutput, is_matrix, reading_of

_CERTAIN = 1.0


class Smoothed(nn.Module):
    r"""A base classifier under its own rule: k classes, and *abstains* as class k.

    Without gradients it votes: each class's logit is $\log(v_j + \tfrac12)$, and class k leads
    where the vote decides nothing. So whoever takes the largest logit counts by the model's own
    rule, and an abstention is no right answer. With gradients it is $\log \frac1m \sum_i
    \mathrm{softmax}(f(x + \sigma \epsilon_i))$, which attacks on smoothed classifiers
    differentiate (Salman et al. 2019).

    Args:
        base: a classifier of images in [0, 1]; its normalisation is inside. Its logits are found
            in what it returns, as `outputs` finds them.
        sigma: standard deviation of the noise.
        votes: N.
        alpha: the chance of an answer that the vote does not support.
        draws: m.

    Cost: N forward passes of the base without gradients, m forward and backward with them.
    """

    def __init__(
        self,
        base: nn.Module,
        sigma: float,
        votes: int = 100,
        alpha: float = 0.001,
        draws: int = 8,
    ):
        super().__init__()
        if not (sigma > 0 and votes > 0 and draws > 0 and 0 < alpha < 1):
            raise ModelError(
                "expected sigma, votes and draws above 0 and alpha between 0 and 1, got "
                f"sigma={sigma}, votes={votes}, draws={draws}, alpha={alpha}"
            )
        self.base = base
        self.reading: Reading | None = None
        self.sigma, self.votes, self.alpha, self.draws = sigma, votes, alpha, draws

    def forward(self, images: Tensor) -> Tensor:
        """Logits of k + 1 classes, `(n, k + 1)`."""
        if torch.is_grad_enabled() and images.requires_grad:
            return self._expected(images)
        return self._voted(images)

    def _expected(self, images: Tensor) -> Tensor:
        parts = [self._noisy(images).log_softmax(dim=1) for _ in range(self.draws)]
        logits = torch.logsumexp(torch.stack(parts), dim=0) - torch.tensor(self.draws).log()
        return torch.cat([logits, logits.amin(dim=1, keepdim=True) - _CERTAIN], dim=1)

    def _voted(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            counts = self._one_hot(images)
            for _ in range(self.votes - 1):
                counts = counts + self._one_hot(images)
            logits = (counts + 0.5).log()
            top = counts.topk(2, dim=1).values.round().long().tolist()
            undecided = [p_of_lead(a, a + b) > self.alpha for a, b in top]
            mask = torch.tensor(undecided, device=images.device)
            leads = logits.amax(dim=1) + _CERTAIN
            trails = logits.amin(dim=1) - _CERTAIN
            return torch.cat([logits, torch.where(mask, leads, trails)[:, None]], dim=1)

    def _one_hot(self, images: Tensor) -> Tensor:
        logits = self._noisy(images)
        return torch.zeros_like(logits).scatter_(1, logits.argmax(dim=1, keepdim=True), 1.0)

    def _noisy(self, images: Tensor) -> Tensor:
        noisy = images + self.sigma * torch.randn_like(images)
        output = self.base(noisy)
        if is_matrix(output, len(images)):
            return output
        if self.reading is None:
            self.reading = self._reading(noisy, output)
        return self.reading(self.base, (), output)

    def _reading(self, images: Tensor, output: Any) -> Reading:
        try:
            found = reading_of(self.base, images, output)
        except UnknownOutput as error:
            raise ModelError(f"expected logits from the smoothed model, got {error}") from error
        assert found is not None, "a matrix needs no reading"
        return found


@lru_cache(maxsize=100_000)
def p_of_lead(first: int, both: int) -> float:
    """The exact two-sided p of so many votes for the first of two classes that are alike."""
    from scipy.stats import binomtest

    return float(binomtest(first, both, 0.5).pvalue)


def abstention_of(model: nn.Module) -> str | None:
    """What is to be said of a model that may abstain; None for any other."""
    smoothed = next((part for part in model.modules() if isinstance(part, Smoothed)), None)
    if smoothed is None:
        return None
    return (
        f"counted by its own rule: the majority of {smoothed.votes} votes under noise of "
        f"{smoothed.sigma:g}, and an abstention, its last class, where their lead has p > "
        f"{smoothed.alpha:g}; an abstention is no right answer"
    )
