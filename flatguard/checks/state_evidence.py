"""Whether the model keeps something between calls that changes its answers.

Two measurements tell: preflight's comparisons, and examples of the audited path that are shown
again. The verdict, the mechanisms and the check earlier-calls read them.
"""

from __future__ import annotations

from dataclasses import dataclass

from flatguard.checks.evidence import INITIAL, RECORDED, STREAM, Evidence
from flatguard.checks.preflight.facts import PreflightFacts, differs, facts_of

_MOVED = 1e-2
"""A margin that differs by this share of the logits' size is no rounding of another batch."""


def dependence(facts: PreflightFacts) -> str | None:
    """The first comparison that shows a dependence on earlier calls, in words; None if none."""
    if facts.state_draws_apart:
        return (
            "answers depend on earlier calls: the model is random, and after other calls its "
            "logits differ from those of a new copy by more than chance"
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


def taken_back(evidence: Evidence) -> set[int]:
    """Survivors that a deterministic model classified wrong and does not any more."""
    probe, random = evidence.probe(RECORDED), evidence.probe("determinism")
    if probe is None or RECORDED not in probe.tables:
        return set()
    if random is not None and random.facts.get("randomised"):
        return set()
    table = probe.tables[RECORDED]
    moved = set(table.loc[~(table["moved"] <= _MOVED), "sample"].astype(int))
    held = set(table.loc[table["held"], "sample"].astype(int))
    return (moved - held) & evidence.reported


def depends_on_earlier_calls(evidence: Evidence) -> bool:
    """Whether the model's answers depend on what it was asked before, not on its batch."""
    facts = facts_of(evidence)
    if facts is not None and dependence(facts) is not None:
        return True
    on_its_batch = facts is not None and facts.depends_on_its_batch
    return bool(taken_back(evidence)) and not on_its_batch


def was_attacked_anew(evidence: Evidence) -> bool:
    """Whether the checks attacked new copies of the model, which remember nothing."""
    probe = evidence.probe(INITIAL)
    return probe is not None and probe.ran


@dataclass(frozen=True)
class AfterStream:
    """Examples that fool the model in its initial state, shown after clean images.

    Attributes:
        before: how many clean images it had answered.
        shown: how many examples were shown.
        wrong: how many of them fooled it.
    """

    before: int
    shown: int
    wrong: int


def after_a_stream(evidence: Evidence) -> AfterStream | None:
    """None where no example was shown."""
    probe = evidence.probe(STREAM)
    if probe is None or not probe.ran or not probe.facts.get("shown"):
        return None
    return AfterStream(*(int(probe.facts[name]) for name in ("before", "shown", "wrong")))
