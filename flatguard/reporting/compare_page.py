"""A comparison of two runs as a page."""

from __future__ import annotations

from collections.abc import Sequence

from flatguard.reporting.compare import Comparison, Paired
from flatguard.reporting.findings import STATUS_WORDS
from flatguard.reporting.paired_path import PairedPath
from flatguard.reporting.templating import render_page
from flatguard.reporting.text import MINUS, number, percent

_MOST_NUMBERS = 200


def compare_page(comparison: Comparison, path: PairedPath | None) -> str:
    """The comparison as one self-contained page, with the path of one image where there is one."""
    return render_page(
        "compare.html.j2",
        comparison=comparison,
        path=path,
        headline=headline(comparison),
        difference=difference(comparison),
        status_words=STATUS_WORDS,
        p_value=p_value,
        points=points,
        sample_list=_sample_list,
    )


def headline(comparison: Comparison) -> str:
    """The reported and the corrected numbers, in a sentence."""
    reported, corrected = comparison.accuracies[1:]
    return (
        f"Robust accuracy: reported {percent(reported.first)} against {percent(reported.second)}, "
        f"corrected {percent(corrected.first)} against {percent(corrected.second)}"
    )


def difference(comparison: Comparison) -> str:
    """The difference of the corrected numbers, with its interval and its test."""
    corrected = comparison.accuracies[-1]
    return (
        f"Corrected robust accuracy, B minus A: {points(corrected)}, {p_value(corrected.p_value)}"
    )


def points(paired: Paired) -> str:
    """A difference of shares in percentage points, with its interval."""
    low, high = (_signed(end) for end in paired.interval)
    return f"{_signed(paired.difference)} points ({low} to {high})"


def _signed(share: float) -> str:
    value = round(100.0 * share, 1)
    return f"{value:+.1f}".replace("-", MINUS) if value else "0.0"


def p_value(p: float) -> str:
    """`p = 0.031`; a value below 0.0001 as a bound."""
    return f"p = {number(p, 2)}" if p >= 1e-4 else "p < 0.0001"


def _sample_list(samples: Sequence[int]) -> str:
    """The numbers of the first 200 samples, and how many more there are."""
    shown = ", ".join(str(sample) for sample in samples[:_MOST_NUMBERS])
    left = len(samples) - _MOST_NUMBERS
    return f"{shown} and {left:,} more" if left > 0 else shown or "none"
