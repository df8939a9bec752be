r"""Inference that holds whenever it stops: how many of a finite population have a property.

Items are drawn without replacement. Before a draw every count $F$ of $N$ is as probable as every
other one. After $f$ of $m$ the ratio of prior and posterior at the true count is a nonnegative
martingale that begins at 1, so by Ville's inequality

$$C_m = \left\{ F : P(f \mid m, F, N) > \frac{\alpha}{m + 1} \right\}$$

holds $F$ for all $m$ at once with probability $1 - \alpha$, $P$ being hypergeometric (Waudby-Smith
and Ramdas 2020, "Confidence sequences for sampling without replacement", Theorem 2.1 with a uniform
prior).
"""

from __future__ import annotations

import math

HALF_LEVEL = 0.975
"""For two statements that hold together with 95%."""

EVIDENCE = 20.0
"""Of an e-value: a fair coin reaches it in at most one of 20 sequences, whenever one stops."""


def count_bounds(population: int, drawn: int, found: int, level: float) -> tuple[int, int]:
    """The least and the largest count that a confidence sequence of this level has now.

    Args:
        population: how many items there are.
        drawn: how many were drawn, without replacement.
        found: how many of those have the property.
        level: the chance that the true count is within the bounds, however often they are read.
    """
    import numpy as np
    from scipy.stats import hypergeom

    counts = np.arange(found, population - (drawn - found) + 1)
    log_chance = hypergeom.logpmf(found, population, counts, drawn)
    kept = counts[log_chance > math.log((1.0 - level) / (drawn + 1))]
    return int(kept[0]), int(kept[-1])


def sign_evidence(first: int, second: int) -> float:
    r"""The e-value against a coin that is fair or favours the second side.

    The mean likelihood ratio over all coins that favour the first one, with counts $a$ and $b$:
    $2 \int_{1/2}^1 p^a (1 - p)^b \, dp \cdot 2^{a + b}$ (Robbins 1970). It is a martingale of the
    tosses of a fair coin, and shrinks on average under the others, so it may be read at any time.
    """
    from scipy.special import betainc

    both = first + second
    log_mean = math.lgamma(first + 1) + math.lgamma(second + 1) - math.lgamma(both + 2)
    above = float(betainc(second + 1, first + 1, 0.5))  # the mass of the coins above one half
    return 2.0 * above * math.exp(min(700.0, log_mean + both * math.log(2.0)))
