"""Batch dependence: do the other images of the batch, or its size, change an answer?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.preflight.facts import (
    BATCH_DIFFERS,
    SOURCE,
    PreflightFacts,
    differs,
    facts_of,
    not_measured,
)

NAME = "batch-dependence"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where an image's logits depend on the batch that it is in."""
    facts = facts_of(evidence)
    if facts is None or "behaviour" in facts.failed:
        return not_measured(NAME, evidence, "behaviour")
    compared = (
        (facts.other_neighbours, "beside other images"),
        (facts.smaller_batch, "in a smaller batch"),
    )
    found = [
        f"logits of the same images {part.described(where)}"
        for part, where in compared
        if part is not None and (part.largest is None or part.largest > BATCH_DIFFERS)
    ]
    if facts.batch_draws_apart:
        found.append("logits of the same images, drawn again and again, lie apart beside others")
    if facts.single_image is not None:
        found.append(f"a batch of a single image fails: the model {facts.single_image}")
    shown = [part for part in (facts.other_neighbours, facts.smaller_batch) if part is not None]
    images = max((part.images for part in shown), default=0)
    if found:
        trained = "batch normalisation" in facts.trained_parts
        cause = "; batch normalisation computes as in training" if trained else ""
        return Finding(
            check=NAME, status="warn", samples=images, source=SOURCE,
            summary=f"{'; '.join(found)}{cause}", next=_NEXT,
        )  # fmt: skip
    if facts.batch_draws_apart is not None:
        return Finding(
            check=NAME, status="pass", source=SOURCE,
            summary="its random answers beside other images are no farther apart than in one batch",
        )  # fmt: skip
    if not shown:
        why, how = _not_compared(facts)
        return not_run(NAME, SOURCE, f"not compared between batches: {why}", how)
    where = [where for part, where in compared if part is not None]
    random = facts.smaller_batch is None and differs(facts.other_seed)
    but = "; its random numbers are others in a smaller batch" if random else ""
    return Finding(
        check=NAME, status="pass", samples=images, source=SOURCE,
        summary=f"the same logits for {images} images {' and '.join(where)}{but}",
    )  # fmt: skip


def _not_compared(facts: PreflightFacts) -> tuple[str, str]:
    """Why no image was shown in two batches, and what to do about it."""
    if facts.own_generator:
        why = "its answers are random, with numbers of a generator of its own"
        return why, "draw random numbers with torch's own generator, which flatguard seeds"
    if differs(facts.repeated):
        return "its answers depend on earlier calls", "give the attack a model without memory"
    return "too few different images", "evaluate more images"


_NEXT = (
    "make each answer depend on its own image only: model.eval(), BatchNorm with running "
    "statistics, and no squeeze() of the batch dimension"
)
_WHY = (
    "An attack changes all images of a batch together. If the others change an image's answer, a "
    "number depends on which images happen to be in one batch."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
