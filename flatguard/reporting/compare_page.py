"""A comparison as a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from flatguard.reporting.compare import Comparison, Paired
from flatguard.reporting.findings import WORDS
from flatguard.reporting.report_page import TONES, page
from flatguard.reporting.text import MINUS, number, percent

MOST_NUMBERS = 200


def compare_page(comparison: Comparison) -> str:
    """The comparison as one self-contained page."""
    return page(
        "compare.html.j2",
        comparison=comparison,
        headline=headline(comparison),
        tones=TONES,
        words=WORDS,
        p_value=p_value,
        points=points,
        listed=listed,
        version=version("flatguard"),
    )


def headline(comparison: Comparison) -> str:
    """The corrected numbers' difference, in a sentence."""
    corrected = comparison.accuracies[-1]
    return (
        f"Corrected robust accuracy {percent(corrected.first)} against "
        f"{percent(corrected.second)}: {points(corrected)}, {p_value(corrected.p_value)}"
    )


def points(paired: Paired) -> str:
    """A difference of shares in percentage points, with its interval."""
    low, high = (_signed(end) for end in paired.interval)
    return f"{_signed(paired.difference)} points ({low} to {high})"


def _signed(share: float) -> str:
    value = round(100.0 * share, 1)
    return f"{value:+.1f}".replace("-", MINUS) if value else "0.0"


def p_value(p: float) -> str:
    """`p = 0.031`, exact; tiny ones as a bound."""
    return f"p = {number(p, 2)}" if p >= 1e-4 else "p < 0.0001"


def listed(samples: Sequence[int]) -> str:
    """Numbers of samples, as many as can be read."""
    shown = ", ".join(str(sample) for sample in samples[:MOST_NUMBERS])
    left = len(samples) - MOST_NUMBERS
    return f"{shown} and {left:,} more" if left > 0 else shown or "none"
