"""`docs/reproduction.md` from results: every claim in one table, honest misses among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flatguard.studies.reproduce import Result
from flatguard.studies.study import PAPERS, Study

HEAD = """# Both papers, claim by claim

What `make reproduce` measured on real checkpoints, on two CPU cores. A rule was written down
before each number; where the number does not follow it, the row says `differs`, and where a
statement is false as printed, `refuted`. Bounds and radii in this table are explanatory, not a
certificate.
"""


def page(studies: Sequence[Study], results: Sequence[Result]) -> str:
    """The whole page, in Markdown."""
    lines = [HEAD, _score(results), "## Claims\n", *_table(studies, results)]
    lines += ["\n## Every figure and table\n", *_status(studies, results)]
    lines += ["\n## What the numbers rest on\n", *_grounds(results)]
    return "\n".join(lines)


def _score(results: Sequence[Result]) -> str:
    found = Counter(claim.verdict for result in results for claim in result.claims)
    said = ", ".join(f"{found[verdict]} {verdict}" for verdict in sorted(found))
    return f"{sum(found.values())} claims: {said}.\n"


def _table(studies: Sequence[Study], results: Sequence[Result]) -> list[str]:
    rows = [
        "| study | model | claim | paper | here | verdict | note |",
        "|---|---|---|---|---|---|---|",
    ]
    order = [study.name for study in studies]
    for result in sorted(results, key=lambda result: order.index(result.study)):
        model = ", ".join(model.name for model in result.models)
        for claim in result.claims:
            cells = [
                f"`{result.study}`", model, claim.claim, claim.paper, claim.said(),
                f"**{claim.verdict}**", f"{claim.note} Agrees if {claim.rule}.".strip(),
            ]  # fmt: skip
            rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return rows


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
                rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return rows


def _grounds(results: Sequence[Result]) -> list[str]:
    rows = [
        "| study | protocol | model | weights | data | samples | seed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [
            f"`{result.study}`", result.protocol,
            ", ".join(model.name for model in result.models),
            ", ".join(model.weights_sha256[:12] for model in result.models),
            f"{result.data} {result.data_sha256[:12]}", str(result.samples), str(result.seed),
            f"{result.seconds:.0f}",
        ]  # fmt: skip
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
