"""Clean accuracy: is it beyond chance, as published, and not explained by a mistake?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.preflight.accuracy import clean_accuracy
from flatguard.checks.preflight.facts import SOURCE
from flatguard.checks.statistics import interval

NAME = "clean-accuracy"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where there is no robustness to judge, or where a mistake explains the accuracy."""
    found = clean_accuracy(evidence)
    if found is None:
        how = "fix the model: it has to give finite logits for the clean images"
        return not_run(NAME, SOURCE, "no clean image was classified", how)
    chance = found.chance
    wrong = found.nothing_to_judge or found.doubt
    return Finding(
        check=NAME,
        status="fail" if wrong else "pass" if chance.answer == "beyond" else "warn",
        summary=wrong or found.undecided or f"{found.text}; guessing reaches {chance.guess:.1%}",
        value=chance.accuracy,
        threshold=chance.guess,
        interval=interval(chance.correct, chance.images),
        samples=chance.images,
        source=SOURCE,
        next=_next(found.cause, found.chance.answer) if wrong or found.undecided else None,
        data={"answer": chance.answer, "cause": found.cause},
    )


def _next(cause: str | None, answer: str) -> str:
    if cause is not None:
        return f"{cause}: correct that, and evaluate again"
    if answer in ("too-few", "one-class"):
        return "evaluate more images, of several classes"
    return "check weights, preprocessing and the order of the classes: flatguard preflight"


_WHY = (
    "Robust accuracy is at most clean accuracy. If the model is no better than guessing on clean "
    "images, or far from what it should reach, the weights, the preprocessing or the labels are "
    "wrong, and the number is not about the model that you mean."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
