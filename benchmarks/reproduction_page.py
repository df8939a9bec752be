"""`docs/reproduction.md` from results: every claim in one table, whatever its verdict."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from flatguard.studies import PAPERS
from flatguard.studies.result import Result
from flatguard.studies.study import Study

_NAMED = 3
"""The most models whose names are shown; more are counted."""

_HEAD = """# Both papers, claim by claim

What `make reproduce` measured on real checkpoints, on two CPU cores. Each row has a rule; where
the number does not follow it, the row says `differs`, and where a statement is false as printed,
`refuted`. Bounds and radii in this table are explanatory, not a certificate.

Rules were written before their numbers. These were changed after a first number was seen: the rank
correlation with a basin's width (Figures 2, 6 and 12 of Walter et al.) counts basins that were
never left as the widest, which changed 0.00 to -0.76 on ResNet-20; the spread of widths is a ratio
of quartiles, `not-measured` where only a bound is known; the peak over earlier layers (Figure 14)
is `not-measured` where so few samples leave it open; Eq. 5 is reparametrised by 1e-4 in place of
0.01, where it was refuted already; means over runs of Stutz et al. have Student's interval in place
of the bootstrap's, which changed no verdict.
"""


def page(studies: Sequence[Study], results: Sequence[Result]) -> str:
    """The whole page, in Markdown."""
    order = [study.name for study in studies]
    results = sorted(results, key=lambda result: order.index(result.study))
    lines = [_HEAD, _score(results), "## Claims\n", *_table(results)]
    lines += ["\n## Every figure and table\n", *_status(studies, results)]
    lines += ["\n## Rules and notes\n", *_notes(results)]
    lines += ["\n## What the numbers rest on\n", *_grounds(results)]
    return "\n".join(lines)


def _score(results: Sequence[Result]) -> str:
    found = Counter(claim.verdict for result in results for claim in result.claims)
    verdicts = ", ".join(f"{found[verdict]} {verdict}" for verdict in sorted(found))
    return f"{sum(found.values())} claims: {verdicts}.\n"


def _table(results: Sequence[Result]) -> list[str]:
    rows = ["| study | model | claim | paper | here | verdict |", "|---|---|---|---|---|---|"]
    for result in results:
        for claim in result.claims:
            cells = [
                f"`{result.study}`", _models(result), _plain(claim.claim), _plain(claim.paper),
                claim.result(),
                f"**{claim.verdict}**",
            ]  # fmt: skip
            rows.append(_row(cells))
    return rows


def _models(result: Result) -> str:
    if len(result.models) > _NAMED:
        return f"{len(result.models)} checkpoints"
    return ", ".join(model.name for model in result.models) or "none needed"


def _weights(result: Result) -> str:
    """Of each model; of many, one hash over theirs."""
    hashes = [model.weights_sha256 for model in result.models]
    if len(hashes) > _NAMED:
        return f"{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:12]} over all"
    return ", ".join(one[:12] for one in hashes)


def _notes(results: Sequence[Result]) -> list[str]:
    lines = []
    for result in results:
        lines.append(f"\n### {result.study}, {_models(result)}\n")
        lines += [f"- {_plain(note)}" for note in result.notes]
        for claim in result.claims:
            note = f" {claim.note}" if claim.note else ""
            text = _plain(f"agrees if {claim.rule}.{note}")
            lines.append(f"- *{claim.name}*, {claim.verdict}: {text}")
    return lines


def _status(studies: Sequence[Study], results: Sequence[Result]) -> list[str]:
    rows = []
    done = {result.study for result in results}
    for paper, cited in PAPERS.items():
        rows += [f"\n{cited}\n", "| study | where | status | claim |", "|---|---|---|---|"]
        for study in studies:
            if study.paper == paper:
                left = "" if study.status != "runs-here" or study.name in done else ", not run yet"
                why = f" ({study.why})" if study.why else ""
                cells = [f"`{study.name}`", study.reference, study.status + left, study.claim + why]
                rows.append(_row(cells))
    return rows


def _grounds(results: Sequence[Result]) -> list[str]:
    rows = [
        "| study | protocol | model | weights | data | samples | seed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        shown = result.shown
        if shown is not None:
            cells = [
                f"`{result.study}`", shown.protocol, _models(result), _weights(result),
                f"{shown.data} {shown.sha256[:12]}", str(shown.samples), str(shown.seed),
                f"{result.seconds:.0f}",
            ]  # fmt: skip
            rows.append(_row(cells))
    return rows


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Stars are mathematics here, not emphasis."""
    return text.replace("*", "\\*")
