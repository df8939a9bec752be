"""How reliable the target's gradients are: what the gradient-truth probe has stored.

The check gradient-truth, the mechanisms and the verdict read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.preflight.facts import facts_of
from flatguard.geometry.response import CURVED

_DISAGREE = 0.5
"""A change that differs from its prediction by this share contradicts the gradient."""

_MOVES = 1e-3
"""The target moves if its margin changes by this much (over the temperature) within the ball."""

_HALF = 0.5
"""The probe's steps are half a radius long; its predictions are for a whole radius."""

_VANISHED = 1e-3
"""Cross-entropy's gradient has vanished where it is this much smaller than the margin's."""

USEFUL = 0.05
"""A direction is useful if half a radius along it lowers the margin by this much, of 2."""

WHOLE = 0.92
"""Networks without a cut have a correlation of 0.95 to 1.00, also those without any defence at
16/255; where a quarter of the features is cut, it is below 0.89."""

MOST = 0.5
"""From this share of the points on, gradients are unavailable."""

SOME = 0.1
"""From this share of the points on, an unreliable gradient warns."""

_FOLLOWED = 0.7, 1.5
"""Over half a radius the margin falls by this much of what the gradient predicts, on networks that
hide nothing: 0.73 to 1.44 on those of the masking zoo that were looked at."""


@dataclass(frozen=True)
class GradientEvidence:
    """What the gradient-truth probe found, as shares of its points.

    Attributes:
        points: how many points there are.
        unavailable: the margin's gradient is missing, not finite, exactly 0, or contradicted by
            central differences, although the target moves within the ball.
        dead: the margin's gradient is missing, not finite or exactly 0.
        vanished: cross-entropy's gradient is 0, or negligible beside the margin's.
        no_loss: cross-entropy's gradient is missing, not finite or exactly 0.
        contradicted: central differences differ from what the margin's gradient predicts, and so
            do longer steps.
        states: counts of the states of the margin's gradient and of cross-entropy's.
        drops: the mean drop of the margin along each candidate direction.
        linear: the median ratio of the drop over half a radius to the drop that the gradient
            predicts; 0.9 to 1 on honest robust networks, near 0 on bumpy ones. None if not
            measured.
        agreement: the median correlation of the margin's response to small random steps with what
            each gradient predicts: `raw`, the target's own, and repaired ones.
        leaves_torch: values go through NumPy and come back, where neither a front nor a head can be
            repaired.
    """

    points: int
    unavailable: float
    dead: float
    vanished: float
    no_loss: float
    contradicted: float
    states: dict[str, int]
    drops: dict[str, float]
    linear: float | None
    agreement: dict[str, float]
    leaves_torch: bool

    @property
    def usual_drop(self) -> float:
        """How much the target's own gradient lowers the margin."""
        return max(self.drops.get("raw", 0.0), self.drops.get("tempered", 0.0))

    @property
    def is_partly_missing(self) -> bool:
        """Whether the gradient does not explain how the margin answers to small random steps."""
        return is_partly_missing(self.agreement)

    @property
    def is_explained(self) -> bool:
        """Whether the gradient, or a repaired one, explains it; also where nothing was measured."""
        return max(self.agreement.values(), default=1.0) >= WHOLE

    @property
    def best(self) -> str | None:
        """The direction that lowers the margin most."""
        return max(self.drops, key=lambda name: self.drops[name], default=None)

    @property
    def is_straight(self) -> bool:
        """Whether the margin does what the gradient predicts, nearby and over half a radius.

        No repaired, smoothed, estimated or tempered direction leads much further then.
        """
        is_wrong = max(self.unavailable, self.dead, self.no_loss) > SOME or self.vanished > MOST
        is_wrong |= self.drops.get("raw", 0.0) < 0.5 * self.usual_drop
        is_whole = self.agreement.get("raw", 0.0) >= WHOLE and not self.leaves_torch
        least, most = _FOLLOWED
        is_followed = self.linear is not None and least <= self.linear <= most
        return is_followed and is_whole and not is_wrong and self.usual_drop >= USEFUL


def gradient_evidence(evidence: Evidence) -> GradientEvidence | None:
    """The probe's tables as shares; None where it has none."""
    probe = evidence.probe("gradient-truth")
    if probe is None or not {"gradients", "drops"} <= set(probe.tables):
        return None
    return measured_gradients(probe, _agreement(evidence, probe))


def measured_gradients(probe: ProbeEvidence, agreement: dict[str, float]) -> GradientEvidence:
    """The probe's tables as shares.

    Args:
        probe: gradient-truth, with its tables.
        agreement: `median_agreement` of its responses, or nothing where something else disturbs.
    """
    table, drops = probe.tables["gradients"], probe.tables["drops"]
    broken = table["margin_state"] != "ok"
    gap = (table["predicted"] - table["measured"]).abs()
    size = table[["predicted", "measured"]].abs().max(axis=1)
    is_whole = agreement.get("raw", 0.0) >= WHOLE
    contradicted = ~broken & (gap > _DISAGREE * size) & (gap > 1e-6) & (not is_whole)
    moving = table["moves"] > _MOVES
    ratio = table["loss_norm"] / table["margin_norm"].where(table["margin_norm"] > 0)
    vanished = (table["loss_state"] != "ok") | (ratio < _VANISHED)
    states = pd.concat(
        [table["margin_state"].map("margin {}".format), table["loss_state"].map("loss {}".format)]
    )
    counted = states.value_counts().sort_index()
    return GradientEvidence(
        points=len(table),
        unavailable=float(((broken & moving) | contradicted).mean()),
        dead=float(broken.mean()),
        vanished=float(vanished.mean()),
        no_loss=float((table["loss_state"] != "ok").mean()),
        contradicted=float(contradicted.mean()),
        states={str(name): int(count) for name, count in counted.items()},
        drops=mean_drops(drops),
        linear=_linearity(table, drops),
        agreement=agreement,
        leaves_torch=_leaves_torch(probe.facts),
    )


def median_agreement(table: pd.DataFrame | None) -> dict[str, float]:
    """The median over the samples for each candidate; those where nothing responds are left out.

    A curved network agrees more over shorter steps; that of roundings is left over longer ones. A
    noise that is too small for the radius disturbs all but the longest.
    """
    if table is None:
        return {}
    medians = table.groupby("candidate")[["agreement", "closer", "farther"]].median()
    longer = medians["agreement"].fillna(medians["closer"])
    shorter = medians["closer"].fillna(medians["agreement"])
    near = longer.where(longer < CURVED, pd.concat([longer, shorter], axis=1).max(axis=1))
    best = pd.concat([near, medians["farther"]], axis=1).max(axis=1).dropna()
    return {str(name): float(value) for name, value in best.items()}


def _agreement(evidence: Evidence, probe: ProbeEvidence) -> dict[str, float]:
    """Empty where draws or the other images of the batch make the margin answer otherwise, too."""
    random, facts = evidence.probe("determinism"), facts_of(evidence)
    if random is not None and random.facts.get("randomised"):
        return {}
    if facts is not None and facts.depends_on_its_batch:
        return {}
    return median_agreement(probe.tables.get("responses"))


def is_partly_missing(agreement: Mapping[str, float]) -> bool:
    """Whether the target's own gradient explains too little of how the margin responds."""
    return agreement.get("raw", 1.0) < WHOLE


def _linearity(table: pd.DataFrame, drops: pd.DataFrame) -> float | None:
    own = drops[drops["candidate"] == "tempered"]
    both = table.merge(own, on=["sample", "point"])
    promised = _HALF * both["predicted"]
    ratio = (both["drop"] / promised)[promised > 0]
    return float(ratio.median()) if len(ratio) else None


def _leaves_torch(facts: Mapping[str, Any]) -> bool:
    met = facts.get("met", {})
    left = any("numpy" in stages for stages in met.values())
    return left and bool(facts.get("exits_matter", True)) and not {"front", "head"} & set(met)


def mean_drops(drops: pd.DataFrame) -> dict[str, float]:
    """The mean drop of the margin along each candidate.

    Drops are clipped, so that one huge drop counts no more than reaching the boundary.
    """
    clipped = drops["drop"].clip(-2.0, 4.0).groupby(drops["candidate"]).mean()
    return {str(name): float(value) for name, value in clipped.items()}
