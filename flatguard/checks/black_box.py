"""Black box: searches without gradients. Where they find more, gradients are unreliable."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from flatguard.checks.chance import NOT_BY_CHANCE, BeyondChance, ChanceQuestion
from flatguard.checks.check import Check, InParts, Probe, every_level
from flatguard.checks.context import VERIFY_DRAWS, CheckContext, Rows
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.first_look import FirstLook, in_two_looks
from flatguard.checks.search.attempts import Attempt, AttemptTable
from flatguard.checks.search.library_attack import by_attack
from flatguard.geometry.ball import direction, project

NAME = "black-box"


def _gather_noise(context: CheckContext, draws: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Random points on the ball's edge.

    Cost: `draws` forward passes for each survivor, fewer for those that are fooled early.
    """
    table, attempt = AttemptTable(), Attempt("noise", "noise", partial(_noise, context, draws))
    for rows in batches:
        table.add(context, attempt, rows)
    return table.evidence({"draws": draws})


def _gather_square(context: CheckContext, queries: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """The Square attack (Andriushchenko et al. 2020) with a budget of queries.

    Cost: `queries` + 1 forward passes for each survivor, fewer for those that are fooled early.
    """
    table, method = AttemptTable(), by_attack(context, "square", {"n_queries": queries})
    attempt = Attempt(f"square, {queries} queries", "black-box", method)
    for rows in batches:
        table.add(context, attempt, rows)
    return table.evidence({"queries": queries})


def _noise(context: CheckContext, draws: int, rows: Rows) -> tuple[Tensor, Tensor]:
    norm = context.budget.norm
    best = rows.images.clone()
    fooled = torch.zeros(len(rows), dtype=torch.bool, device=best.device)
    for _ in range(draws):
        if bool(fooled.all()):
            break
        step = context.eps * direction(torch.randn_like(best), norm)
        images = project(rows.images + step, rows.images, context.eps, norm)
        new = ~fooled
        new[new.clone()] = context.fools(images[~fooled], rows[~fooled])
        best[new] = images[new]
        fooled |= new
    return best, fooled


def _cost_of_noise(context: CheckContext, draws: int) -> float:
    return len(context.survivors) * draws * (VERIFY_DRAWS if context.randomised else 1)


def _summary(evidence: Evidence, found: BeyondChance) -> str:
    return (
        f"searches that use no gradient (Square, random noise) fool {len(found.only)} survivors "
        f"{NOT_BY_CHANCE}"
    )


def _data(evidence: Evidence, found: BeyondChance) -> dict[str, float | int | None]:
    fooled = {
        "noise": len(evidence.fooled_by("noise")),
        "square": len(evidence.fooled_by("black-box")),
    }
    return {"p_value": found.p, **fooled}


_QUESTION = ChanceQuestion(
    check=NAME,
    source="Athalye et al. 2018; Andriushchenko et al. 2020 (Square)",
    families=("black-box", "noise"),
    needs=("black-box",),
    probe="square",
    level="standard",
    missing=lambda evidence: (
        f"Square, a search without gradients, was not run: {evidence.why_not('square')}"
    ),
    summary=_summary,
    advice=lambda evidence: (
        "the model's gradients mislead attacks: the check gradient-truth says how"
    ),
    data=_data,
    search="Square",
)

_WHY = (
    "A search without gradients has less information than a gradient attack. If it finds more "
    "adversarial examples, the model's gradients mislead attacks."
)

_LOOK = FirstLook(nearest=0.05, spread=0.1)
"""At `standard`. After the searches along gradients, Square finds next to nothing on a model whose
gradients are straight."""

CHECK = Check(
    NAME,
    _QUESTION.source,
    _WHY,
    _QUESTION.judge,
    (
        Probe("noise", InParts(_gather_noise), every_level(8), _cost_of_noise, order=40, reads=()),
        *in_two_looks(
            Probe(
                "square",
                InParts(_gather_square),
                {"standard": 200, "full": 2000},
                lambda context, queries: len(context.survivors) * queries,
                order=55,
                stored_as=lambda context, queries: f"square-{queries}",
                reads=(),
            ),
            _LOOK,
        ),
    ),
)
