"""The report of a run on prompts as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flatguard.checks.prompt_verdict import FATES
from flatguard.reporting.charts import Axis, Band, Series, line_chart
from flatguard.reporting.figure import SERIES_TONES, Figure, FigureText
from flatguard.reporting.summaries import evenly_spaced
from flatguard.reporting.templating import render_page
from flatguard.reporting.text import between, counted, number, percent

if TYPE_CHECKING:
    from flatguard.checks.prompt_verdict import PromptVerdict
    from flatguard.reporting.prompt_report import MedianPath, PromptPath, PromptReport

_TONES = {"consistent": "pass", "overestimated": "fail", "inconclusive": "warn"}
_MOST_LINES, _MOST_SUFFIXES = len(SERIES_TONES), 60
_DIGITS = 5
"""log κ is about 20 and changes by tenths."""
_STEP = Axis("step of the attack", is_whole=True)


def prompt_page(report: PromptReport) -> str:
    """The report as one self-contained page."""
    word, _, rest = report.verdict.sentence.partition(":")
    return render_page(
        "prompts.html.j2",
        report=report,
        tone=_TONES[report.verdict.verdict],
        word=word,
        rest=f":{rest}",
        lines=verdict_lines(report.verdict),
        figures=prompt_figures(report),
        fates=[FATES[one.fate] for one in report.verdict.findings],
        suffixes=[_suffix_rows(path) for path in report.paths],
    )


def verdict_lines(verdict: PromptVerdict) -> list[str]:
    """What the verdict rests on, a line each."""
    lines = [
        f"successes: {verdict.claimed} claimed on {counted(verdict.prompts, 'prompt')}, "
        f"{verdict.left} hold when sent as text ({percent(verdict.left / verdict.prompts)} of all; "
        f"95% interval {between(verdict.left_interval)})"
    ]
    lines += [f"{FATES[fate]}: {count}" for fate, count in verdict.lost.items()]
    if verdict.sampled_share is not None and verdict.sampled_interval is not None:
        lines.append(
            f"sampled answers that begin with the target, where a success holds: "
            f"{percent(verdict.sampled_share)} (95% interval {between(verdict.sampled_interval)})"
        )
    return lines


def prompt_figures(report: PromptReport) -> list[Figure]:
    """Sharpness and loss along the steps: medians with intervals, and each prompt."""
    found = []
    for name, title, path, get in (
        ("sharpness", "log κ", report.median_log_kappa, lambda one: one.log_kappa),
        ("loss", "loss", report.median_loss, lambda one: one.loss),
    ):
        if path is not None and path.prompts > 1:
            found.append(_median_chart(name, title, path))
        if report.paths:
            found.append(_each_chart(name, title, report.paths, get))
    return found


def _median_chart(name: str, title: str, path: MedianPath) -> Figure:
    low, high = (tuple(one[end] for one in path.interval or ()) for end in (0, 1))
    bands = (Band(low, high),) if path.interval else ()
    x = tuple(float(step) for step in range(len(path.median)))
    return line_chart(
        FigureText(
            f"median-{name}",
            f"Median {title} of {counted(path.prompts, 'prompt')}",
            f"The median {title} begins at {number(path.median[0])} and ends at "
            f"{number(path.median[-1])}.",
            "The band is the exact 95% interval of the median."
            if bands
            else "Fewer than six prompts have no interval of the median.",
        ),
        _STEP,
        Axis(title),
        [Series(f"median {title}", "ink", x, path.median, bands)],
    )


def _each_chart(
    name: str,
    title: str,
    paths: Sequence[PromptPath],
    get: Callable[[PromptPath], Sequence[float]],
) -> Figure:
    chosen = paths[:_MOST_LINES]
    more = "" if len(chosen) == len(paths) else f" The first {len(chosen)} of {len(paths)}."
    series = [
        Series(
            f"prompt {index}{', success claimed' if path.claimed[-1] else ''}", tone,
            tuple(float(step) for step in range(len(get(path)))), get(path), label=str(index),
        )
        for index, (path, tone) in enumerate(zip(chosen, SERIES_TONES, strict=False), start=1)
    ]  # fmt: skip
    return line_chart(
        FigureText(
            f"each-{name}",
            f"{title} of each prompt",
            f"{title} along the steps of {counted(len(chosen), 'prompt')}.",
            "Step 0 is the suffix before the attack. A line ends with the number of its prompt. "
            f"The legend says where the attack claims success at its last step.{more}",
        ),
        _STEP,
        Axis(title),
        series,
    )


def _suffix_rows(path: PromptPath) -> list[tuple[str, ...]]:
    """At most 60 steps with their numbers and their suffix."""
    return [
        (
            str(step), number(path.loss[step], _DIGITS), number(path.log_kappa[step], _DIGITS),
            "yes" if path.claimed[step] else "no", "yes" if path.survives[step] else "no",
            path.suffixes[step],
        )
        for step in evenly_spaced(len(path.loss), _MOST_SUFFIXES)
    ]  # fmt: skip
