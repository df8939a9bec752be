"""Gradient truth: is what autograd says what the target does?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, Status, not_run

NAME = "gradient-truth"
SOURCE = "Athalye et al. 2018; Pintor et al. 2022; central differences in float64"

DISAGREE = 0.5
"""A change that differs from its prediction by so large a share contradicts the gradient."""

MOVES = 1e-3
"""The target moves if its margin changes by so much (over the temperature) within the ball."""

LEAVING = "numpy"
HALF = 0.5
"""The probe's steps are half a radius long; its predictions are for a whole one."""

VANISHED = 1e-3
"""Cross-entropy's gradient has vanished where it is so much smaller than the margin's."""

USEFUL = 0.05
"""A direction leads somewhere if half a radius along it lowers the margin by so much, of 2."""

SOME, MOST = 0.1, 0.5


@dataclass(frozen=True)
class Truth:
    """Shares of the points that were looked at.

    Attributes:
        points: how many there are.
        unavailable: the margin's gradient is missing, not finite, exactly 0, or contradicted by
            central differences, although the target moves within the ball.
        dead: the margin's gradient is missing, not finite or exactly 0.
        vanished: cross-entropy's gradient is 0, or next to nothing beside the margin's.
        no_loss: cross-entropy's gradient is missing, not finite or exactly 0.
        contradicted: central differences differ from what the margin's gradient predicts.
        states: of the margin's gradient and of cross-entropy's, counted.
        drops: mean drop of the margin along each candidate direction.
        linear: median of the drop over half a radius against what the gradient's slope promises;
            0.9 to 1 on honest robust networks, next to 0 on bumpy ones. None if not measured.
        leaves_torch: values go through NumPy where neither a front nor a head could be mended.
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
    leaves_torch: bool

    @property
    def leads(self) -> float:
        """How far the raw gradient leads."""
        return max(self.drops.get("raw", 0.0), self.drops.get("tempered", 0.0))

    @property
    def best(self) -> str | None:
        """The direction that leads furthest."""
        return max(self.drops, key=lambda name: self.drops[name], default=None)


def truth_of(evidence: Evidence) -> Truth | None:
    """What the probe saw, as shares; None if it saw nothing."""
    probe = evidence.probe(NAME)
    if probe is None or not {"gradients", "drops"} <= set(probe.tables):
        return None
    table, drops = probe.tables["gradients"], probe.tables["drops"]
    broken = table["margin_state"] != "ok"
    gap = (table["predicted"] - table["measured"]).abs()
    size = table[["predicted", "measured"]].abs().max(axis=1)
    contradicted = ~broken & (gap > DISAGREE * size) & (gap > 1e-6)
    moving = table["moves"] > MOVES
    ratio = table["loss_norm"] / table["margin_norm"].where(table["margin_norm"] > 0)
    vanished = (table["loss_state"] != "ok") | (ratio < VANISHED)
    states = pd.concat(
        [table["margin_state"].map("margin {}".format), table["loss_state"].map("loss {}".format)]
    )
    counted = states.value_counts().sort_index()
    clipped = drops["drop"].clip(-2.0, 4.0).groupby(drops["candidate"]).mean()
    return Truth(
        points=len(table),
        unavailable=float(((broken & moving) | contradicted).mean()),
        dead=float(broken.mean()),
        vanished=float(vanished.mean()),
        no_loss=float((table["loss_state"] != "ok").mean()),
        contradicted=float(contradicted.mean()),
        states={str(name): int(count) for name, count in counted.items()},
        drops={str(name): float(value) for name, value in clipped.items()},
        linear=_linearity(table, drops),
        leaves_torch=_leaves_torch(probe.facts.get("met", {})),
    )


def _linearity(table: pd.DataFrame, drops: pd.DataFrame) -> float | None:
    own = drops[drops["candidate"] == "tempered"]
    both = table.merge(own, on=["sample", "point"])
    promised = HALF * both["predicted"]
    ratio = (both["drop"] / promised)[promised > 0]
    return float(ratio.median()) if len(ratio) else None


def _leaves_torch(met: Mapping[str, Mapping[str, int]]) -> bool:
    left = any(LEAVING in stages for stages in met.values())
    return left and not {"front", "head"} & set(met)


def check_gradient_truth(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where most gradients are absent or contradicted; warns from a tenth on."""
    truth = truth_of(evidence)
    if truth is None:
        if not evidence.reported and evidence.probe(NAME) is not None:
            return Finding(
                check=NAME, status="pass", source=SOURCE,
                summary="no sample survived, so no gradient was in the attack's way",
            )  # fmt: skip
        return not_run(NAME, SOURCE, f"no gradient was looked at: {evidence.why_not(NAME)}")
    value = max(truth.unavailable, truth.dead, truth.no_loss)
    doubtful = value > SOME or truth.vanished > SOME or truth.leads < USEFUL or truth.leaves_torch
    status: Status = "fail" if value > MOST else "warn" if doubtful else "pass"
    return Finding(
        check=NAME,
        status=status,
        summary="; ".join([*_words(truth), *_mended(evidence, truth)]),
        value=value,
        threshold=MOST,
        samples=truth.points,
        source=SOURCE,
        next=_advice(truth) if status != "pass" else None,
        data={
            "unavailable": truth.unavailable, "dead": truth.dead, "vanished": truth.vanished,
            "contradicted": truth.contradicted, "linear": truth.linear, "states": truth.states,
            "drops": truth.drops,
        },
    )  # fmt: skip


def _advice(truth: Truth) -> str | None:
    usual = ("raw", "tempered", None)
    return None if truth.best in usual else f"attack along the {truth.best} direction"


def _words(truth: Truth) -> list[str]:
    said = []
    if truth.dead > 0:
        said.append(f"the margin's gradient is absent at {truth.dead:.0%} of {truth.points} points")
    if truth.contradicted > 0:
        said.append(f"central differences contradict it at {truth.contradicted:.0%}")
    if truth.vanished > 0:
        exactly = (
            "" if truth.no_loss == truth.vanished else f", is exactly 0 at {truth.no_loss:.0%}"
        )
        said.append(f"cross-entropy's gradient has vanished at {truth.vanished:.0%}{exactly}")
    if truth.leaves_torch:
        said.append("values leave torch on the way, where nothing could be mended")
    if truth.leads < USEFUL:
        said.append("a step along it does not lower the margin")
    return said or [f"gradients say what the target does at all {truth.points} points"]


def _mended(evidence: Evidence, truth: Truth) -> list[str]:
    """Where a cut was found; or that none could be, and what the verdict then rests on."""
    probe = evidence.probe(NAME)
    if probe is None or max(truth.unavailable, truth.dead) <= MOST:
        return []
    met = probe.facts.get("met", {})
    stages = sorted({stage for name, found in met.items() if name != "all" for stage in found})
    if stages:
        return [f"stages that were mended: {', '.join(stages)}"]
    return ["no cut stage could be isolated: only estimates, transfer and black-box remain"]
