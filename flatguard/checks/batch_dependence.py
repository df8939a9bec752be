"""Batch dependence: do the other images of the batch, or its size, change an answer?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from flatguard.checks.check import Check, InParts, Probe, every_level, not_fooled_yet
from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.evidence import ALONE, Evidence, ProbeEvidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.preflight.facts import (
    SOURCE,
    PreflightFacts,
    differs,
    facts_of,
    is_batch_effect,
    not_measured,
)
from flatguard.checks.search.attempts import Attempt, AttemptTable
from flatguard.checks.search.gradients import Gradient, margin_loss
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.twins.outputs import Outputs

NAME = "batch-dependence"
_SEARCHED_ALONE = "searched-alone"


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
        if part is not None and is_batch_effect(part)
    ]
    if facts.batch_draws_apart:
        found.append(
            "the model is random, and beside other images its logits of the same images differ by "
            "more than chance"
        )
    if facts.single_image is not None:
        found.append(f"a batch of a single image fails: the model {facts.single_image}")
    shown = [part for part in (facts.other_neighbours, facts.smaller_batch) if part is not None]
    images = max((part.images for part in shown), default=0)
    if found:
        trained = "batch normalisation" in facts.trained_parts
        cause = "; batch normalisation is in training mode" if trained else ""
        return Finding(
            check=NAME, status="warn", samples=images, source=SOURCE,
            summary=f"{'; '.join(found)}{cause}{_alone(evidence)}", next=_NEXT,
        )  # fmt: skip
    if facts.batch_draws_apart is not None:
        return Finding(
            check=NAME, status="pass", source=SOURCE,
            summary="the model is random, and beside other images its logits differ no more than "
            "in the same batch",
        )  # fmt: skip
    if not shown:
        why, how = _not_compared(facts)
        return not_run(NAME, SOURCE, f"not compared between batches: {why}", how)
    where = [where for part, where in compared if part is not None]
    random = facts.smaller_batch is None and differs(facts.other_seed)
    other = "; a smaller batch was not compared, because its random numbers are others"
    but = other if random else ""
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


def _alone(evidence: Evidence) -> str:
    """What holds alone in the clean batch, in words; empty where that was not measured."""
    probe = evidence.probes.get(ALONE)
    if probe is None or not probe.ran:
        return ""
    return (
        "; so each example was shown alone among clean images, and the corrected number counts "
        f"what is wrong there: of the attack's own examples {len(evidence.given_back)} are right "
        f"again there, and of those that it left {len(evidence.mostly_wrong)} are wrong"
    )


def _gather_alone(context: CheckContext, _: int) -> ProbeEvidence:
    """Show each audited example alone in the clean batch of its block.

    Cost: for each sample that is right before the attack a forward pass of its block.
    """
    frames = [pd.DataFrame({"sample": [], "wrong": []})]
    with context.seeded(ALONE):
        for rows in context.rows(context.clean_correct):
            wrong = context.wrong_alone(rows.adversarial, rows).double()
            columns = {"sample": rows.sample.cpu().numpy(), "wrong": wrong.cpu().numpy()}
            frames.append(pd.DataFrame(columns))
    return ProbeEvidence({}, {"survival": pd.concat(frames, ignore_index=True)})


def _where_it_decides(name: str) -> Callable[[CheckContext, int], str | None]:
    """The name of a probe that runs only where answers depend on the batch."""
    return lambda context, _: name if context.decides_alone else None


def _cost_of_search(context: CheckContext, steps: int) -> float:
    return len(context.survivors) * steps * context.batch_limit if context.decides_alone else 0.0


def _search_alone(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Attack each sample that still stands alone in the clean batch of its block.

    Cost: for each of them at most `steps` forward and backward passes of its block.
    """
    table = AttemptTable()
    for rows in batches:
        table.add(context, Attempt(ALONE, ALONE, partial(_one_by_one, context, steps)), rows)
    return table.evidence({"steps": steps})


def _one_by_one(context: CheckContext, steps: int, rows: Rows) -> tuple[Tensor, Tensor]:
    found = []
    for index in range(len(rows)):
        row = rows[index : index + 1]
        batch, place = context.clean_batch(int(row.sample[0]))

        def twin(images: Tensor, batch: Tensor = batch, place: int = place) -> Outputs:
            shown = torch.cat([batch[:place], images, batch[place + 1 :]])
            logits = context.model(shown)[place : place + 1]
            return Outputs(logits, logits)

        source = Gradient(twin, margin_loss, context.meter)
        context.meter.add((len(batch) - 1) * steps)
        found.append(search(context, source, row, Search(steps)).images)
    images = torch.cat(found)
    return images, context.wrong_alone(images, rows)


_NEXT = (
    "make each answer depend on its own image only: model.eval(), BatchNorm with running "
    "statistics, and no squeeze() of the batch dimension"
)
_WHY = (
    "An attack changes all images of a batch together. If the others change an image's answer, a "
    "number depends on which images happen to be in one batch."
)

CHECK = Check(
    NAME,
    SOURCE,
    _WHY,
    _judge,
    (
        Probe(
            ALONE,
            _gather_alone,
            every_level(1),
            lambda context, _: 0.0,
            order=0,
            stored_as=_where_it_decides(ALONE),
            searches=False,
            per_survivor=False,
        ),
        Probe(
            _SEARCHED_ALONE,
            InParts(_search_alone, not_fooled_yet),
            every_level(20),
            _cost_of_search,
            order=40,
            stored_as=_where_it_decides(_SEARCHED_ALONE),
            reads=(),
            waits=True,
        ),
    ),
)
