"""Candidate directions for an attack: the target's own gradient, and those of its twins.

The gradient-truth probe measures how far one step along each of them lowers the margin; attacks
with twins and with more budget follow the best of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.gradient_evidence import MOST, is_partly_missing, mean_drops, median_agreement
from flatguard.checks.search.attempts import Method
from flatguard.checks.search.gradients import (
    Estimated,
    Gradient,
    GradientSource,
    cross_entropy,
    margin_loss,
    tempered,
)
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.twins.outputs import plain
from flatguard.twins.repairs import DRAWS, FITTED_ON, PASSES, Repair, repairs

GOOD_ENOUGH = 1.0
"""Where a plain step of half a radius lowers the margin by half of it, no repair is tried."""

_WORTH_TRYING = 0.05
"""A repaired direction is tried where its step lowers the margin by this much more than others."""

_OWN = ("raw", "tempered")
_REPAIRS_TRIED = 3
_SMOOTH_DRAWS, _SMOOTH_SHARE = 8, 0.5
_LITTLE_DRAWS, _LITTLE_SHARE = 4, 0.25
_SPSA_PAIRS, _SPSA_SHARE = 16, 0.5


@dataclass(frozen=True)
class Candidate:
    """A direction that may lead an attack.

    Attributes:
        name: as it is shown.
        source: along cross-entropy over a temperature.
        margin: along the margin of the same repaired twin; None where nothing was repaired.
        smoothed: the same, averaged over a little noise.
    """

    name: str
    source: GradientSource
    margin: GradientSource | None = None
    smoothed: GradientSource | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the target's own gradient, and not that of a twin."""
        return self.name in _OWN


def candidates(context: CheckContext, rows: Rows) -> list[Candidate]:
    """Every candidate."""
    return plain_candidates(context) + repaired_candidates(context, rows)


def plain_candidates(context: CheckContext) -> list[Candidate]:
    """The target's own gradient, of the logits as they are and over their temperature."""
    target, meter, draws = plain(context.model), context.meter, context.draws
    return [
        Candidate("raw", Gradient(target, cross_entropy, meter, draws=draws)),
        Candidate("tempered", Gradient(target, tempered, meter, draws=draws)),
    ]


def repaired_candidates(context: CheckContext, rows: Rows) -> list[Candidate]:
    """Repaired stages, smoothed and estimated gradients."""
    meter, draws = context.meter, context.draws
    found = repaired_only(context, rows)
    spread = context.eps * _unit(context, rows)
    noise = _SMOOTH_SHARE * spread
    smoothed = Gradient(
        plain(context.model), tempered, meter, draws=max(_SMOOTH_DRAWS, draws), noise=noise
    )
    estimated = Estimated(context.model, meter, pairs=_SPSA_PAIRS, spread=_SPSA_SHARE * spread)
    return [*found, Candidate("smoothed", smoothed), Candidate("estimated", estimated)]


def repaired_only(context: CheckContext, rows: Rows) -> list[Candidate]:
    """Repaired stages."""
    meter, draws = context.meter, context.draws
    noise = _LITTLE_SHARE * context.eps * _unit(context, rows)
    return [
        Candidate(
            repair.name,
            Gradient(repair.twin, tempered, meter, draws=draws),
            Gradient(repair.twin, margin_loss, meter, draws=draws),
            Gradient(repair.twin, margin_loss, meter, draws=max(_LITTLE_DRAWS, draws), noise=noise),
        )
        for repair in find_repairs(context, rows)
    ]


def find_repairs(context: CheckContext, rows: Rows) -> list[Repair]:
    """The repairs that apply to this model, found on a few of these images."""
    passes = PASSES + (DRAWS if context.randomised else 0)
    context.meter.add(passes * min(FITTED_ON, len(rows)))
    with context.seeded("repairs"):
        return repairs(context.model, rows.images)


def worth_trying(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The repaired directions that lead further than the raw and tempered ones, best first.

    Where the target's own gradient is partly missing, also the others: it may get stuck anywhere.
    Where the margin's gradient is absent, also what unsaturates it: a margin that does not move
    shows no direction's drop.

    Args:
        tables: the gradient-truth probe's; empty where it did not run.
    """
    drops = tables.get("drops")
    further = _further(drops)
    hidden = _hidden(tables.get("gradients"), drops)
    found = [*further[:1], *hidden, *further[1:], *_more_whole(tables.get("responses"))]
    return list(dict.fromkeys(found))[:_REPAIRS_TRIED]


def _hidden(gradients: pd.DataFrame | None, drops: pd.DataFrame | None) -> list[str]:
    if gradients is None or drops is None:
        return []
    is_dead = float((gradients["margin_state"] != "ok").mean()) > MOST
    return ["saturating"] if is_dead and "saturating" in set(drops["candidate"]) else []


def _more_whole(responses: pd.DataFrame | None) -> list[str]:
    agreement = median_agreement(responses)
    if not is_partly_missing(agreement):
        return []
    return sorted(agreement.keys() - {"raw"}, key=lambda name: (-agreement[name], name))


def _further(drops: pd.DataFrame | None) -> list[str]:
    if drops is None:
        return []
    mean = pd.Series(mean_drops(drops))
    usual = max(mean.get("raw", 0.0), mean.get("tempered", 0.0), 0.0)
    if usual >= GOOD_ENOUGH:
        return []
    least = max(usual + _WORTH_TRYING, 0.5 * float(mean.max()))
    better = mean[mean > least].sort_values(ascending=False)
    return [name for name in better.index if name not in _OWN]


def best_candidate(
    context: CheckContext, rows: Rows, tables: Mapping[str, pd.DataFrame]
) -> Candidate:
    """The direction that led furthest, for attempts with more budget; not an estimated one."""
    better = [name for name in worth_trying(tables) if name != "estimated"]
    found = candidates(context, rows) if better else plain_candidates(context)
    named = {candidate.name: candidate for candidate in found}
    return named.get(better[0] if better else "tempered", named["tempered"])


def by_search(context: CheckContext, source: GradientSource, settings: Search) -> Method:
    """An attempt's method: projected gradient ascent along a source."""

    def method(rows: Rows) -> tuple[Tensor, Tensor]:
        found = search(context, source, rows, settings)
        return found.images, found.fooled

    return method


def _unit(context: CheckContext, rows: Rows) -> float:
    """The noise of one value where the whole noise vector has length 1 in the budget's norm."""
    values = rows.images[0].numel()
    return float({"Linf": 1.0, "L2": values**-0.5, "L1": 1.0 / values}[context.budget.norm])
