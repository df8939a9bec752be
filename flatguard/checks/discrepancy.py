"""Discrepancy: what survives the audited attack, but not an attack on a twin that decides alike.

Every twin gets the same search, and so does the target itself: the `control`, which follows the
gradient of cross-entropy as the audited attacks do, from a random start. A sample that a twin's
attack fools and the control does not is fooled because of the twin.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.chance import BeyondChance, ChanceQuestion
from flatguard.checks.check import Check, InParts, Probe, every_level
from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.gradient_evidence import is_partly_missing, median_agreement
from flatguard.checks.mechanism import FIXES, GATE_FIX, SQUASHED_FIX
from flatguard.checks.search.attempts import Attempt, AttemptTable, Family
from flatguard.checks.search.branch_attacks import attack_switches, cost_of_switches, switched
from flatguard.checks.search.candidates import Candidate, by_search, candidates, worth_trying
from flatguard.checks.search.gradients import (
    Gradient,
    cross_entropy,
    frozen,
    margin_loss,
    tempered,
)
from flatguard.checks.search.projected_gradient import Search
from flatguard.checks.search.repeat import cost_of_repeat, repeat_attack
from flatguard.checks.search.scales import cost_of_scales, scaled, sweep_scales
from flatguard.checks.statistics import rank_biserial
from flatguard.geometry.measures import measure_in
from flatguard.twins.outputs import plain
from flatguard.twins.repairs import double

NAME = "discrepancy"
_TWINS = (
    "temperature",
    "float64",
    "saturating",
    "repair",
    "smoothed",
    "estimated",
    "eot",
    "switch",
)

_ADVICE = {
    "temperature": FIXES["saturation"],
    "float64": "attack the model in float64",
    "saturating": SQUASHED_FIX,
    "repair": FIXES["unavailable-gradient"],
    "smoothed": FIXES["shattered-gradient"],
    "estimated": "attack with gradients that are estimated from the model's outputs (SPSA)",
    "eot": FIXES["stochastic"],
    "switch": GATE_FIX,
}
"""What to do, by the family of the twin that was fooled most often."""

_RIDGE_DROP = 2.0
"""A path crosses the ridge if log sharpness ends this much (in nats) below its peak."""

_FAMILIES: dict[str, Family] = {
    "saturating": "saturating", "logarithm": "saturating", "smoothed": "smoothed",
    "estimated": "estimated",
}  # fmt: skip


def _gather_twins(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Attack the target and each of its twins on every sample that survived.

    The gradient-truth probe tells which repaired directions are worth trying.

    Cost: for each survivor at most `steps` forward and backward passes a twin, of which there are
    four and, where gradients are bad, up to six more; eight times that for randomised targets, and
    once more with their randomness frozen.
    """
    table = AttemptTable()
    known = context.stored("gradient-truth").tables
    chosen, partly = (
        worth_trying(known),
        is_partly_missing(median_agreement(known.get("responses"))),
    )
    for rows in batches:
        for attempt in _plain_attempts(context, rows, steps):
            table.add(context, attempt, rows)
        for candidate in candidates(context, rows) if chosen else []:
            if candidate.name in chosen:
                for attempt in _repaired_attempts(context, candidate, steps, partly):
                    table.add(context, attempt, rows)
    return table.evidence({"steps": steps, "repairs": list(chosen)})


def _plain_attempts(context: CheckContext, rows: Rows, steps: int) -> list[Attempt]:
    target, meter, draws = plain(context.model), context.meter, context.draws
    once, random = Search(steps), Search(steps, random_start=True)
    control = Gradient(target, cross_entropy, meter)
    cooled = Gradient(target, tempered, meter, draws=draws)
    margin = Gradient(target, margin_loss, meter, draws=draws)
    found = [
        Attempt("control", "control", by_search(context, control, random)),
        Attempt("temperature", "temperature", by_search(context, cooled, once)),
        Attempt("margin", "loss", by_search(context, margin, once)),
    ]
    if context.randomised:
        averaged = Gradient(target, cross_entropy, meter, draws=draws)
        found.append(Attempt("eot", "eot", by_search(context, averaged, random)))
        still = frozen(context.model, context.seed("frozen"))
        along = Gradient(still, tempered, meter)
        found.append(Attempt("frozen", "eot", by_search(context, along, random)))
    wide = double(context.model, rows.images[:1])
    if wide is not None:
        precise = Gradient(wide, cross_entropy, meter, draws=draws)
        found.append(Attempt("float64", "float64", by_search(context, precise, random)))
    return found


def _repaired_attempts(
    context: CheckContext, candidate: Candidate, steps: int, partly: bool
) -> list[Attempt]:
    """One along each loss: what a stage was repaired with may be useful for one of them only.

    Where the gradient is partly missing, roundings are left that a little noise averages out.
    """
    kind, once = _FAMILIES.get(candidate.name, "repair"), Search(steps)
    found = [Attempt(candidate.name, kind, by_search(context, candidate.source, once))]
    if candidate.margin is not None:
        run = by_search(context, candidate.margin, once)
        found.append(Attempt(f"{candidate.name}, margin", kind, run))
    if candidate.smoothed is not None and partly:
        run = by_search(context, candidate.smoothed, once)
        found.append(Attempt(f"{candidate.name}, smoothed", kind, run))
    return found


def _cost_of_twins(context: CheckContext, steps: int) -> float:
    frozen_too = 1 if context.randomised else 0
    return len(context.survivors) * steps * (1 + frozen_too + 3 * context.draws)


def _summary(evidence: Evidence, found: BeyondChance) -> str:
    fooled = evidence.fooled_by(*_TWINS)
    return (
        f"attacks on twins, copies of the model that make the same decisions, fool {len(fooled)} "
        f"of {len(evidence.standing)} survivors; {len(found.only)} of them are fooled by neither "
        f"another random seed of the attack nor a plain search (p = {found.p:.2g})"
    )


def _data(evidence: Evidence, found: BeyondChance) -> dict[str, Any]:
    fooled = evidence.fooled_by(*_TWINS)
    return {
        "p_value": found.p,
        "by_attempt": _by_attempt(evidence),
        "paths": _paths(evidence, fooled),
        "rank_biserial": _sharpness_and_survival(evidence, fooled),
    }


def _advice(evidence: Evidence) -> str:
    """How to attack as the twin that was fooled most often."""
    table = evidence.attempts
    twins = table[table["fooled"].astype(bool) & table["family"].isin(_TWINS)]
    best = twins.groupby("attempt")["sample"].nunique().idxmax()
    return _ADVICE[str(twins.loc[twins["attempt"] == best, "family"].iloc[0])]


def _by_attempt(evidence: Evidence) -> dict[str, int]:
    table = evidence.attempts
    counts = table.loc[table["fooled"].astype(bool)].groupby("attempt")["sample"].nunique()
    names = table["attempt"].unique()
    return {str(name): int(counts.get(name, 0)) for name in sorted(names)}


def _sharpness_and_survival(evidence: Evidence, fooled: set[int]) -> float | None:
    """Among all that a twin's attack fools: are those that survived the audit the flatter ones?

    What fools the target fools every twin, so the samples that the audit fooled count.
    """
    samples = evidence.samples[evidence.samples["clean_correct"]]
    survived = samples[samples["sample"].isin(fooled)]
    others = samples[~samples["robust"]]
    column = f"clean_{measure_in(samples.columns).column}"
    return rank_biserial(survived[column].tolist(), others[column].tolist())


def _paths(evidence: Evidence, fooled: set[int]) -> list[dict[str, Any]]:
    """Counts of survived × fooled by a twin's attack × how sharpness changed on the path."""
    crossed = {n: path for table in evidence.trajectory for n, path in crossed_ridge(table).items()}
    samples = evidence.samples[evidence.samples["clean_correct"]]
    rows = pd.DataFrame(
        {
            "survived": samples["robust"].astype(bool).to_numpy(),
            "fooled_by_twin": (samples["sample"].isin(fooled) | ~samples["robust"]).to_numpy(),
            "path": [crossed.get(int(i), "not measured") for i in samples["sample"]],
        }
    )
    counted = rows.value_counts(sort=False).sort_index().rename("samples").reset_index()
    return [
        {
            "survived": bool(row["survived"]),
            "fooled_by_twin": bool(row["fooled_by_twin"]),
            "path": str(row["path"]),
            "samples": int(row["samples"]),
        }
        for row in counted.to_dict("records")
    ]


def crossed_ridge(trajectory: pd.DataFrame) -> dict[int, str]:
    """For each sample: does its path cross a ridge of sharpness, climb it, or stay in a basin?

    `crossed`: it rises above its start and ends `_RIDGE_DROP` below its peak; `climbed`: it
    rises by that much and stays; `flat basin`: neither.
    """
    rows = trajectory[trajectory["sample"].notna() & ~trajectory["bookkeeping"]]
    column = measure_in(rows.columns).column
    rows = rows[np.isfinite(rows[column])].sort_values("call", kind="stable")
    grouped = rows.groupby(rows["sample"].astype("int64"))[column]
    if not len(rows):
        return {}
    table = pd.DataFrame({"first": grouped.first(), "peak": grouped.max(), "last": grouped.last()})
    rose = table["peak"] - table["first"]
    dropped = table["peak"] - table["last"]
    turned = np.where(rose > _RIDGE_DROP, "climbed", "flat basin")
    path = np.where((rose > 0) & (dropped > _RIDGE_DROP), "crossed", turned)
    return dict(zip(table.index.astype(int), path, strict=True))


_QUESTION = ChanceQuestion(
    check=NAME,
    source="Walter et al. 2026, Appendix D.3; Carlini et al. 2019",
    families=_TWINS,
    probe="twins",
    level="fast",
    missing=lambda evidence: (
        "no twin, a copy of the model that is easier to attack, was attacked: "
        f"{evidence.why_not('twins')}"
    ),
    summary=_summary,
    advice=_advice,
    data=_data,
)

_STEPS = 20

_WHY = (
    "A twin is a copy of the model that makes the same decisions and is easier to attack, so an "
    "example that fools the twin also fools the model. Each image of which only that attack finds "
    "an example is one that the audited attack missed."
)

CHECK = Check(
    NAME,
    _QUESTION.source,
    _WHY,
    _QUESTION.judge,
    (
        Probe(
            "twins",
            InParts(_gather_twins),
            every_level(_STEPS),
            _cost_of_twins,
            order=20,
            reads=("gradient-truth",),
        ),
        Probe(
            "switches",
            InParts(attack_switches, switched),
            {"fast": _STEPS, "standard": 3 * _STEPS, "full": 10 * _STEPS},
            cost_of_switches,
            order=35,
            stored_as=lambda context, steps: f"switches-{steps}",
            reads=(),
        ),
        Probe(
            "repeat",
            InParts(repeat_attack),
            every_level(_STEPS),
            cost_of_repeat,
            order=30,
            searches=False,
            reads=(),
        ),
        Probe(
            "scales",
            InParts(sweep_scales, scaled),
            {"standard": 10, "full": 10},
            cost_of_scales,
            order=80,
            per_survivor=False,
            reads=("gradient-truth",),
        ),
    ),
    decisive=True,
)
