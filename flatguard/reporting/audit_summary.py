"""One page for somebody who decides: the question, the answer, how sure it is, what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flatguard.checks.finding import TRUST, Status, needs_trust
from flatguard.checks.verdict import Verdict
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report_page import VERDICT_TONES, headlines, number_line
from flatguard.reporting.templating import render_page
from flatguard.reporting.text import between, counted, percent, shortened, visible

_NAME, _REASONS, _STEPS = 90, 2, 4
"""Most characters of a name, most reasons and most steps: the summary is one page."""

_LINES, _LINE = 10, 85
"""Lines that the page has for reasons and steps, and the characters that each line holds."""

_STATUSES: tuple[tuple[Status, str], ...] = (
    ("pass", "passed"), ("fail", "failed"), ("warn", "gave a warning"), ("not-run", "did not run"),
)  # fmt: skip


def summary_page(judged: JudgedRun) -> str:
    """The summary as one self-contained page, which prints on one sheet of A4."""
    verdict, manifest = judged.verdict, judged.run.manifest
    numbers = headlines(judged)
    reasons, steps = _fitting([one.sentence for one in verdict.explanations], verdict.next)
    return render_page(
        "audit_summary.html.j2",
        sentence=verdict.sentence,
        tone=VERDICT_TONES[verdict.verdict],
        question=_question(judged),
        conclusion=verdict.conclusion,
        reasons=reasons,
        more_reasons=len(verdict.explanations) - len(reasons),
        numbers=numbers,
        number_line=number_line(numbers),
        certainty=_certainty(judged),
        steps=steps,
        more_steps=len(verdict.next) - len(steps),
        trust=TRUST if needs_trust(steps) else None,
        model=shortened(manifest.target.name, _NAME),
        created=shortened(manifest.created, _NAME),
        run=shortened(judged.run.path.name, _NAME),
        hashes=(
            ("weights", shortened(manifest.target.weights_sha256, _NAME)),
            ("data", shortened(manifest.data.sha256, _NAME)),
            ("adversarial images", shortened(judged.summary["adversarial_sha256"], _NAME)),
        ),
    )


def _fitting(reasons: Sequence[str], steps: Sequence[str]) -> tuple[list[str], list[str]]:
    """The first reasons and steps that the page has room for, each whole.

    The first step has its place before the reasons.
    """
    first = _whole(steps[:1], _LINES)
    kept = _whole(reasons[:_REASONS], _LINES - _height(first))
    return kept, _whole(steps[:_STEPS], _LINES - _height(kept))


def _whole(texts: Sequence[str], lines: int) -> list[str]:
    """The first texts that fit into so many lines."""
    return [text for end, text in enumerate(texts, start=1) if _height(texts[:end]) <= lines]


def _height(texts: Sequence[str]) -> int:
    """How many lines these texts take, each on lines of its own."""
    return sum(math.ceil(len(visible(text)) / _LINE) for text in texts)


def _question(judged: JudgedRun) -> str:
    request, manifest, n = judged.run.request, judged.run.manifest, len(judged.samples)
    scale = "" if request.logit_scale == 1.0 else f", its logits × {request.logit_scale:g},"
    return (
        f"Under the attack {shortened(str(request.attack), _NAME)}, the model "
        f"{shortened(manifest.target.name, _NAME)}{scale} keeps a robust accuracy of "
        f"{percent(judged.verdict.robust_accuracy)}: it classifies this share of {n:,} images of "
        f"{shortened(manifest.data.name, _NAME)} correctly although an attacker may change each "
        f"of them within {judged.budget}. Does this number hold?"
    )


def _certainty(judged: JudgedRun) -> list[str]:
    """How much the answer rests on: images, checks, and what no run can tell."""
    verdict, n = judged.verdict, len(judged.samples)
    lines = [
        f"The corrected robust accuracy, the share of {counted(n, 'image')} that no attack "
        f"fooled, is {percent(verdict.corrected_robust_accuracy)}. For all images of the kind it "
        f"may be {between(verdict.corrected_interval)} (95% interval).",
        f"{_checks(judged)} A check that did not run does not count as passed.",
    ]
    if verdict.exit_code == 1:
        lines.append(
            f"The reported number is too high by {percent(verdict.overestimate)} of all images "
            f"(95% interval {between(verdict.overestimate_interval)})."
        )
    lines += _chance(verdict, n)
    if not judged.run.complete:
        lines.append("The run is incomplete: not all images that were planned were attacked.")
    lines.append(
        "The corrected number is an upper bound from the attacks that were run, not a proof: a "
        "stronger attack may find more."
    )
    return lines


def _chance(verdict: Verdict, n: int) -> list[str]:
    """How often so few images let a number pass that is too high by twice the tolerance."""
    rates = [rate for rate in verdict.error_rates if rate.overestimate > 1.5 * verdict.tolerance]
    if verdict.verdict != "consistent" or not rates:
        return []
    return [
        f"With {counted(n, 'image')}, a number that is too high by "
        f"{percent(rates[0].overestimate)} of all images passes in {percent(rates[0].passes)} of "
        "cases, by the choice of the images alone."
    ]


def _checks(judged: JudgedRun) -> str:
    found = [finding.status for finding in judged.verdict.findings]
    counts = [(found.count(status), word) for status, word in _STATUSES]
    parts = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"Of {counted(len(found), 'check')}, {parts}."
