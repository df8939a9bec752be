"""The result of a run in the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from flatguard.checks.finding import TRUST, Finding, advice, needs_trust
from flatguard.checks.verdict import Verdict, verdict_of
from flatguard.detection.flagging import Detection, load_detection
from flatguard.geometry.budget import Budget
from flatguard.recording.layers import layer_median
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files
from flatguard.reporting.sections.claim import claim_rows
from flatguard.reporting.sections.leaderboard import leaderboard_rows
from flatguard.reporting.text import visible
from flatguard.runs.run import Run

COLOURS = {
    "pass": "green", "warn": "yellow", "fail": "red", "not-run": "dim",
    "vulnerable": "red", "consistent": "green", "overestimated": "red", "masked": "red",
    "inconclusive": "yellow", "reproduced": "green", "not reproduced": "red", "refuted": "red",
    "undecided": "yellow",
}  # fmt: skip


def show(run: Run, verdict: Verdict) -> None:
    """Print a finished run's numbers and its verdict."""
    summary = run.summary
    console = Console(soft_wrap=True, highlight=False)
    rows = _rows(run, summary)
    width = max(len(name) for name, _ in rows) + 2
    console.print()
    for name, value in rows:
        console.print(f"{name:<{width}}{visible(value)}", markup=False)
    if run.request.layers is not None:
        for line in _layers(run):
            console.print(visible(line), markup=False)
    for note in run.manifest.target.notes:
        print_wrapped(console, f"note: {note}")
    for warning in summary["warnings"]:
        print_wrapped(console, f"warning: {warning}")
    _show_verdict(console, verdict, run)
    _show_others(console, run)
    page = report_files(run).html
    console.print()
    if page.is_file():
        console.print(visible(f"what the terms mean: {page}#terms"), markup=False)
    console.print(visible(f"{page if page.is_file() else run.path}"), markup=False)


def print_wrapped(console: Console, sentence: str) -> None:
    """Print a sentence between words on a terminal; as one line where a program reads."""
    shown = visible(sentence)
    if console.is_terminal:
        shown = textwrap.fill(shown, max(console.width, 20), break_on_hyphens=False)
    console.print(shown, markup=False)


def show_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print a line for each finding."""
    console = console or Console(soft_wrap=True, highlight=False)
    console.print()
    width = max(len(finding.check) for finding in findings) + 2
    for finding in findings:
        status = Text(f"{finding.status:<9}", style=COLOURS[finding.status])
        # Continued under itself on a terminal; one line each where a program reads.
        room = console.width - width - 9 if console.is_terminal else 1000
        lines = textwrap.wrap(visible(finding.summary), max(room, 20))
        summary = f"\n{'':<{width + 9}}".join(lines)
        console.print(Text(f"{finding.check:<{width}}") + status + Text(summary))


def _show_verdict(console: Console, verdict: Verdict, run: Run) -> None:
    show_findings(verdict.findings, console)
    low, high = verdict.corrected_interval
    word, _, rest = visible(verdict.sentence).partition(":")
    console.print()
    console.print(Text(word, style=f"bold {COLOURS[verdict.verdict]}") + Text(f":{rest}"))
    print_wrapped(console, verdict.conclusion)
    console.print(
        f"corrected robust accuracy  {verdict.corrected_robust_accuracy:.1%}  "
        f"(95% interval {low:.1%} to {high:.1%})"
    )
    if (line := decision_line(verdict, len(run.samples))) is not None:
        console.print(line, markup=False)
    for step in verdict.next[:3]:
        print_wrapped(console, f"next: {advice(step, run.storage)}")
    if needs_trust(verdict.next[:3]):
        console.print(TRUST, markup=False)


def _show_others(console: Console, run: Run) -> None:
    """The claim with its answer, and the entry of the leaderboard, where the run has them."""
    judged = JudgedRun(run, verdict_of(run), run.summary)
    if judged.leaderboard is not None:
        rows = leaderboard_rows(judged.leaderboard)
        _show_rows(console, f"leaderboard: {judged.leaderboard.sentence}", rows)
    if judged.claim is not None and (answer := judged.claim.answer) is not None:
        word, _, rest = visible(answer.sentence).partition(":")
        console.print()
        style = f"bold {COLOURS[answer.word]}"
        console.print(Text("claim ") + Text(word, style=style) + Text(f":{rest}"))
        _show_rows(console, None, claim_rows(judged.claim.claim, answer))


def _show_rows(console: Console, title: str | None, rows: Sequence[tuple[str, str]]) -> None:
    if title is not None:
        console.print(visible(f"\n{title}"), markup=False)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        console.print(f"{name:<{width}}{visible(value)}", markup=False)


def decision_line(verdict: Verdict, n: int) -> str | None:
    """What a pass on so many images is worth; None where no number above 0 passed."""
    passed = verdict.verdict == "consistent" and verdict.robust_accuracy > 0
    if not passed or not verdict.error_rates:
        return None
    larger = (r for r in verdict.error_rates if r.overestimate >= 2 * verdict.tolerance)
    double = next(larger, None)  # none where twice the tolerance is more than all samples
    if double is None:
        return None
    return (
        f"on {n} images a true overestimate of {double.overestimate:.1%} would pass with a chance "
        f"of {double.passes:.1%}"
    )


def _rows(run: Run, summary: dict[str, Any]) -> list[tuple[str, str]]:
    budget = Budget(summary["norm"], summary["eps"])
    n = summary["n_examples"]
    rows = [
        ("clean accuracy", _share(summary, "clean", n)),
        (f"robust accuracy, {budget}", _share(summary, "robust", n)),
        (f"median {run.sharpness.log_name}", _sharpness(run, summary)),
        (
            "cost of attack",
            f"{summary['sample_forwards']:,} forward and {summary['sample_backwards']:,} backward "
            "passes of one image",
        ),
        ("time", f"{summary['seconds']:.1f} s, {summary['attack_seconds']:.1f} s of it the attack"),
    ]
    if summary["check_forwards"]:
        rows.insert(
            4, ("cost of checks", f"{summary['check_forwards']:,} forward passes of one image")
        )
    if summary["engine"] is not None:
        rows.insert(2, ("engine", engine_line(summary["engine"])))
    if (abstained := summary["abstentions"]) is not None:
        shares = f"{abstained['clean']:.1%} clean, {abstained['adversarial']:.1%} under the attack"
        rows.insert(2, ("abstentions", f"{shares}; they are no right answers"))
    if summary["outside_budget"]:
        rows.insert(
            2, ("not counted", f"{summary['outside_budget']} examples outside the budget or [0, 1]")
        )
    if summary["rows_unassigned"]:
        rows.insert(-2, ("rows unassigned", f"{summary['rows_unassigned']:,}"))
    detection = load_detection(run)
    return rows if detection is None else rows + _detector(detection)


def engine_line(engine: dict[str, Any]) -> str:
    """How the search's model differs from the model itself, where the examples were verified."""
    return (
        f"{', '.join(engine['options'])}: the faster copy that was searched leaves "
        f"{engine['search_robust_accuracy']:.1%}; {engine['only_in_search']} examples fool only "
        f"it, {engine['only_in_model']} only the model"
    )


def _detector(detection: Detection) -> list[tuple[str, str]]:
    kinds, rate = detection.kinds, "no rate requested"
    if detection.alpha is not None:
        rate = f"{detection.alpha:.1%} requested"
    flags = (
        f"flagged: of clean images {kinds.clean} ({rate}), of examples that fool the model "
        f"{kinds.successful}, of examples that fail {kinds.failed}"
    )
    rows = [("detector", flags), ("", f"a diagnostic, no defence: {detection.adaptive_evidence}")]
    if detection.in_sample:
        rows.append(("", detection.in_sample_warning))
    return rows


def _share(summary: dict[str, Any], which: str, n: int) -> str:
    share = summary[f"{which}_accuracy"]
    low, high = summary[f"{which}_interval"]
    return f"{share:.1%}  ({round(share * n)}/{n}; 95% interval {low:.1%} to {high:.1%})"


def _sharpness(run: Run, summary: dict[str, Any]) -> str:
    column = run.sharpness.column
    clean, adversarial = (summary[f"median_{column}_{when}"] for when in ("clean", "adversarial"))
    if clean is None or adversarial is None:
        return f"not measured: {run.manifest.target.head_reason or 'the head did not match'}"
    change = adversarial - clean
    if abs(change) < 0.05:
        return f"{clean:.2f} clean → {adversarial:.2f} adversarial (as sharp)"
    direction = "flatter" if change < 0 else "sharper"
    return (
        f"{clean:.2f} clean → {adversarial:.2f} adversarial "
        f"({direction} by a factor {_power(abs(change))})"
    )


def _layers(run: Run) -> list[str]:
    """A line for each layer, the head first."""
    table = run.layers
    names = table[["depth", "layer"]].drop_duplicates().sort_values("depth")
    width = max(len(name) for name in names["layer"]) + 2
    lines = [f"\nmedian κ of {table['sample'].nunique()} samples, estimated ± standard error"]
    for depth, name in names.itertuples(index=False):
        clean, end = (layer_median(table, name, point) for point in ("clean", "adversarial"))
        place = f"l-{depth}" if depth else "head"
        lines.append(
            f"{place:<6}{name:<{width}}{clean or 'not finite'} clean → "
            f"{end or 'not finite'} adversarial"
        )
    return lines


def _power(change: float) -> str:
    decades = change / math.log(10.0)
    return f"{math.exp(change):.1f}" if decades < 3 else f"10^{decades:.0f}"
