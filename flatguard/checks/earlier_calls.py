"""Earlier calls: does what the model was shown before change its answers?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.preflight.facts import (
    SOURCE,
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
    if facts.own_generator and facts.state_draws_apart is None:
        why = facts.failed.get("state", "the model has no copy to compare with")
        return not_run(
            NAME, SOURCE, f"its answers are random, and earlier calls were not compared: {why}",
            "draw random numbers with torch's own generator, which flatguard seeds",
        )  # fmt: skip
    if facts.own_generator:
        summary = "random answers of a model that was called before and of a new copy are alike"
        return Finding(
            check=NAME, status="pass", samples=images, source=SOURCE, summary=summary
        )  # fmt: skip
    if facts.after_calls is None:
        why = facts.failed.get("state", "the model has no copy to compare with")
        summary = f"the same logits for {images} images again; nothing else: {why}"
    else:
        summary = f"a model that was called before and a new copy answer {images} images alike"
    return Finding(check=NAME, status="pass", samples=images, source=SOURCE, summary=summary)


def _dependence(facts: PreflightFacts) -> str | None:
    """The first comparison that shows a dependence, in words; None if none does."""
    if facts.state_draws_apart:
        return (
            "answers depend on earlier calls: the random answers of a model that was called before "
            "lie apart from those of a new copy"
        )
    repeated = None if facts.own_generator else facts.repeated
    compared = (
        (repeated, "when the same images are shown again"),
        (facts.after_calls, "between a model that was called before and a new copy"),
        (facts.near_image, "on images near to those before, between that model and a new copy"),
    )
    for part, where in compared:
        if part is not None and differs(part):
            text = part.described(where)
            return f"answers depend on earlier calls: logits {text}, with the same random numbers"
    return None


_WHY = (
    "An attack calls the model many times. If earlier calls change the answers, by a count, a "
    "cache or a stored answer to a similar image, the search does not see the model that is used "
    "afterwards."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
