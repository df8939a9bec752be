"""Earlier calls: does what the model was asked before change its answers?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import (
    SOURCE,
    Difference,
    PreflightFacts,
    differs,
    facts_of,
    not_measured,
)

NAME = "earlier-calls"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the model keeps something between calls that changes its answers."""
    facts = facts_of(evidence)
    if facts is None or facts.repeated is None:
        return not_measured(NAME, evidence, "behaviour")
    why = _dependence(facts)
    images = facts.repeated.images
    if why is not None:
        return Finding(
            check=NAME, status="warn", samples=images, source=SOURCE, summary=why,
            next="give the attack a model without memory: no counts, caches or stored answers",
        )  # fmt: skip
    if facts.own_generator:
        summary = "its random numbers are its own generator's; beyond that nothing was compared"
    elif facts.after_calls is None:
        summary = f"the same logits for {images} images again; no copy of the model to compare with"
    else:
        summary = f"a model that was asked before and a new copy answer {images} images alike"
    return Finding(check=NAME, status="pass", samples=images, source=SOURCE, summary=summary)


def _dependence(facts: PreflightFacts) -> str | None:
    if differs(facts.repeated) and not facts.own_generator:
        return _told(facts.repeated, "when the same images are shown again")
    if differs(facts.after_calls):
        return _told(facts.after_calls, "between a model that was asked before and a new copy")
    if differs(facts.near_image):
        return _told(
            facts.near_image,
            "on images near to those that were asked before, between that model and a new copy",
        )
    return None


def _told(part: Difference | None, where: str) -> str:
    assert part is not None, "checked by the caller"
    size = "not finite" if part.largest is None else f"up to {part.largest:.2g} of their size"
    return (
        f"answers depend on earlier calls: logits differ by {size} {where}, decisions on "
        f"{part.flips} of {part.images}, with the same random numbers"
    )


_WHY = (
    "An attack asks the model many times. If earlier questions change the answers, by a count, a "
    "cache or a stored answer to a similar image, the search does not see the model that is used "
    "afterwards."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
