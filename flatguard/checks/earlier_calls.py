"""Earlier calls: does what the model was shown before change its answers?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flatguard.checks.check import Check, Probe, every_level
from flatguard.checks.context import CheckContext, evenly
from flatguard.checks.evidence import INITIAL, STREAM, Evidence, ProbeEvidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.preflight.facts import SOURCE, facts_of, not_measured
from flatguard.checks.recorded_mistakes import show_again
from flatguard.checks.state_evidence import (
    after_a_stream,
    dependence,
    depends_on_earlier_calls,
    was_attacked_anew,
)
from flatguard.runs.check_evidence import load_fooled, load_probes
from flatguard.targets.initial import initial_copy

NAME = "earlier-calls"

_COMPARED, _CALLS = 32, 8
_MOVED = 1e-3
_NO_COPY = "the model cannot be copied before its first call; give it a __deepcopy__"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the model keeps something between calls that changes its answers."""
    facts = facts_of(evidence)
    if facts is None or facts.repeated is None:
        return not_measured(NAME, evidence, "behaviour")
    why = dependence(facts)
    if why is None and depends_on_earlier_calls(evidence):
        why = (
            "answers depend on earlier calls: images that the model got wrong during the attack "
            "are right when they are shown again"
        )
    images = facts.repeated.images
    if why is not None:
        return Finding(
            check=NAME, status="warn", samples=images, source=SOURCE,
            summary="; ".join([why, *_without_memory(evidence)]),
            next="give the attack a model without memory: no counts, caches or stored answers",
        )  # fmt: skip
    if facts.own_generator and facts.state_draws_apart is None:
        why = facts.failed.get("state", "the model has no copy to compare with")
        return not_run(
            NAME, SOURCE, f"its answers are random, and earlier calls were not compared: {why}",
            "draw random numbers with torch's own generator, which flatguard seeds",
        )  # fmt: skip
    if facts.own_generator:
        summary = (
            "the model is random, and after other calls its logits differ no more than those of a "
            "new copy"
        )
    elif facts.after_calls is None:
        why = facts.failed.get("state", "the model has no copy to compare with")
        summary = f"the same logits for {images} images shown again; nothing else was tried: {why}"
    else:
        summary = f"a model that was called before and a new copy answer {images} images alike"
    return Finding(check=NAME, status="pass", samples=images, source=SOURCE, summary=summary)


def _without_memory(evidence: Evidence) -> list[str]:
    """What became of the model without its memory, and of the same examples after a stream."""
    if not was_attacked_anew(evidence):
        return [f"it was not attacked without its memory: {evidence.why_not(INITIAL)}"]
    found = ["so new copies, as the model was at first, were attacked, and the verdict is on them"]
    after = after_a_stream(evidence)
    if after is not None:
        found.append(
            f"of {after.shown} examples that fool them, {after.wrong} fool a model that answered "
            f"{after.before} clean images before"
        )
    return found


def _gather_initial(context: CheckContext, _: int) -> ProbeEvidence:
    """Show the examples of the audited path to the model in its initial state.

    Cost: two forward passes for each recorded example, and `_CALLS` + 2 for some images, by which
    it is seen that new copies remember nothing.
    """
    if not context.is_fresh:
        return ProbeEvidence.missing(_NO_COPY)
    if _still_remembers(context):
        return ProbeEvidence.missing(
            "new copies of the model still remember earlier calls: part of its state cannot be "
            "copied, or is outside of it; give it a __deepcopy__ that starts anew"
        )
    return show_again(context, "recorded, initial state")


def _still_remembers(context: CheckContext) -> bool:
    """Whether a new copy answers otherwise after calls of other new copies.

    It is not asked of randomised targets, whose answers differ anyway.
    """
    if context.randomised:
        return False
    numbers = evenly(context.samples["sample"].to_numpy(), _COMPARED)
    for rows in context.rows(numbers):
        with context.seeded(INITIAL):
            before = context.logits(rows.images)
        with context.seeded(INITIAL):
            for _ in range(_CALLS):
                context.logits(rows.adversarial)
        with context.seeded(INITIAL):
            after = context.logits(rows.images)
        size = before.abs().amax(dim=1, keepdim=True)
        if bool(((after - before).abs() > _MOVED * size).any()):
            return True
    return False


def _gather_stream(context: CheckContext, images: int) -> ProbeEvidence:
    """Show every example that fools the initial state to a model that answered others before.

    Cost: `images` forward passes, and one for each example.
    """
    used = None if context.evaluation.initial is None else initial_copy(context.evaluation.initial)
    if used is None:
        return ProbeEvidence.missing(_NO_COPY)
    for rows in context.rows(evenly(context.samples["sample"].to_numpy(), images)):
        context.logits(rows.images, used)
    examples: dict[int, Tensor] = {}
    for name in load_probes(context.run):
        examples = load_fooled(context.run, name) | examples
    wrong = 0
    for rows in context.rows(np.array(sorted(examples), np.int64)):
        shown = torch.stack([examples[int(number)] for number in rows.sample]).to(context.device)
        wrong += int((context.logits(shown, used).argmax(dim=1) != rows.labels).sum())
    return ProbeEvidence(
        {"before": min(images, len(context.samples)), "shown": len(examples), "wrong": wrong}
    )


def _where_remembered(name: str) -> Callable[[CheckContext, int], str | None]:
    """The name of a probe that runs only where answers depend on earlier calls."""
    return lambda context, _: name if context.remembers else None


_WHY = (
    "An attack calls the model many times. If earlier calls change the answers, by a count, a "
    "cache or a stored answer to a similar image, the search does not see the model that is used "
    "afterwards."
)

CHECK = Check(
    NAME,
    SOURCE,
    _WHY,
    _judge,
    (
        Probe(
            INITIAL,
            _gather_initial,
            every_level(1),
            lambda context, _: 0.0,
            order=5,
            stored_as=_where_remembered(INITIAL),
            searches=False,
            per_survivor=False,
        ),
        Probe(
            STREAM,
            _gather_stream,
            every_level(200),
            lambda context, images: images,
            order=900,
            stored_as=_where_remembered(STREAM),
            searches=False,
            per_survivor=False,
        ),
    ),
)
