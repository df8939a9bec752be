"""The claim that a run is judged against, and the answer."""

from __future__ import annotations

from flatguard.checks.claims.answer import Answer
from flatguard.checks.claims.claim import Claim
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.templating import facts_table
from flatguard.reporting.text import counted, percent

_MOST = 40
_CONCLUSIONS = {
    "reproduced": "The evidence agrees with the claim.",
    "not reproduced": "The evidence does not show what is claimed.",
    "refuted": "The claim is false: adversarial examples within the budget disprove it.",
    "undecided": "The evidence neither supports nor disproves the claim.",
}


def _build(judged: JudgedRun) -> SectionContent | NotMeasured | None:
    stored = judged.claim
    if stored is None:
        return None
    if stored.answer is None:
        return NotMeasured("the claim was not answered yet", "flatguard audit RUN")
    answer = stored.answer
    return SectionContent(
        html=facts_table(claim_rows(stored.claim, answer)),
        intro=f"{answer.sentence[0].upper()}{answer.sentence[1:]}. {_CONCLUSIONS[answer.word]}",
        data=stored.model_dump(mode="json"),
    )


def claim_rows(claim: Claim, answer: Answer) -> list[tuple[str, str]]:
    """Names and values of a claim and its answer."""
    n = answer.images
    about = "" if claim.images is None else f", on {counted(claim.images, 'image')}"
    rows = [
        ("claim", f"{claim.robust} robust{about}"),
        ("withstand", f"{answer.right} of {n} ({percent(answer.right / n)}); {answer.robust.text}"),
        (
            "withstand the checks, too",
            f"{answer.corrected} of {n} ({percent(answer.corrected / n)})",
        ),
    ]
    if claim.clean is not None and answer.clean is not None:
        clean = answer.clean
        rows.append(
            (
                "clean",
                f"{claim.clean} claimed; {clean.right} of {n} ({percent(clean.right / n)}); "
                f"{clean.text}",
            )
        )
    if answer.refuting:
        shown = ", ".join(str(number) for number in answer.refuting[:_MOST])
        left = len(answer.refuting) - _MOST
        more = f" and {left} more, in claim.json" if left > 0 else ""
        rows.append(("refuted by samples", f"{shown}{more}"))
    return [*rows, *(("note", note) for note in answer.notes)]


CLAIM = Section("claim", "The claim", _build)
