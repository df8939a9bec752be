"""Determinism, as far as preflight measures it: random, or dependent on the batch or on calls."""

from __future__ import annotations

from flatguard.checks.finding import Finding, not_run
from flatguard.checks.preflight.facts import SOURCE, Difference, PreflightFacts, differs

_CHECK = "determinism"


def repeatable(facts: PreflightFacts) -> Finding:
    """Determinism, as far as preflight measures it."""
    if facts.repeated is None or facts.other_seed is None:
        return not_run(_CHECK, SOURCE, facts.failed.get("behaviour", "not measured"), None)
    images = facts.repeated.images
    if facts.own_generator:
        return _random(facts.repeated, facts, "with random numbers of a generator of its own")
    if differs(facts.repeated):
        return Finding(
            check=_CHECK, status="warn", samples=images, source=SOURCE,
            summary="the same images get other logits when they are shown again, with the same "
            "random numbers: see earlier-calls",
        )  # fmt: skip
    if differs(facts.other_seed):
        return _random(facts.other_seed, facts, "with other random numbers")
    if facts.depends_on_its_batch:
        return Finding(
            check=_CHECK, status="warn", samples=images, source=SOURCE,
            summary=f"the same logits for {images} images shown again in the same batch only: see "
            "batch-dependence",
        )  # fmt: skip
    return Finding(
        check=_CHECK, status="pass", samples=images, source=SOURCE,
        summary=f"the same logits for {images} images shown again",
    )  # fmt: skip


def _random(found: Difference, facts: PreflightFacts, how: str) -> Finding:
    size = "not finite" if found.largest is None else f"up to {found.largest:.2g} of their size"
    dropout = "; dropout is in training mode" if "dropout" in facts.trained_parts else ""
    return Finding(
        check=_CHECK, status="warn", samples=found.images, source=SOURCE,
        summary=f"the model is random: {how}, logits differ by {size}, and {found.flips} of "
        f"{found.images} decisions change{dropout}",
        next="average the attack's gradients over the model's random draws: --attack "
        "torchattacks:EOTPGD or rand",
    )  # fmt: skip
