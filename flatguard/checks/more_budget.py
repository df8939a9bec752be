"""More budget: more steps, classes and radius; and signs in the audited path itself.

With a large enough radius every image can be turned into any other, so accuracy must fall to
chance. Where it does not, the search is hindered and the model is not robust (Carlini et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from flatguard.checks.chance import BeyondChance, ChanceQuestion, Signs
from flatguard.checks.check import Check, InParts, Probe, not_fooled_yet
from flatguard.checks.context import CheckContext, Rows, evenly
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.first_look import FirstLook, gradients_are_straight, in_two_looks
from flatguard.checks.search.attempts import Attempt, AttemptTable, Method
from flatguard.checks.search.candidates import (
    best_candidate,
    by_search,
    find_repairs,
    worth_trying,
)
from flatguard.checks.search.gradients import (
    Gradient,
    GradientSource,
    cross_entropy,
    margin_loss,
)
from flatguard.checks.search.library_attack import by_attack
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.checks.search.targeted import Plan, search_towards_classes
from flatguard.twins.outputs import Twin, plain

NAME = "more-budget"

_STANDARD = 110
_PLANS = {
    5: Plan(steps=8, wide=0, nearest=0.15, more=2),
    _STANDARD: Plan(steps=20, wide=3, nearest=1 / 3, more=6),
    550: Plan(steps=60, wide=9, nearest=0.0, more=0),
}
"""By what a level spends on a sample."""

_SWEPT = 48
_FACTORS = (2.0, 4.0, 8.0, 16.0)
"""Of the radius. The last ball is larger: it reaches from a grey image to every corner."""

_ABOVE_CHANCE = 0.15
"""In the largest ball, accuracy this much above chance is a sign."""

_ALONG = {"raw": "along the model's own gradient", "best": "along the best gradient found"}
"""The directions of the sweep, in words."""

_NOT_MONOTONE = 0.05
_RISING = 0.05
"""The loss is still rising if its median grows by this share over the last quarter of the path."""

_FOLLOWED = 2000
"""The median is over at most this many samples, evenly spread, so that memory does not grow."""


def _gather_longer(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Along the best direction known, and along the margin's: more steps, from a random start.

    Where that direction is a twin's, what it finds is no sign that more steps alone are enough.

    Cost: for each survivor up to 2 · `steps` passes.
    """
    table, known = AttemptTable(), context.stored("gradient-truth").tables
    settings = Search(steps, random_start=True)
    for rows in batches:
        best = best_candidate(context, rows, known)
        family = "budget" if best.is_own else "further"
        attempt = Attempt("longer", family, by_search(context, best.source, settings))
        table.add(context, attempt, rows)
        margin = Gradient(plain(context.model), margin_loss, context.meter, draws=context.draws)
        attempt = Attempt("longer, margin", "budget", by_search(context, margin, settings))
        table.add(context, attempt, rows)
    return table.evidence({"steps": settings.steps, "restarts": settings.restarts})


def _gather_targeted(context: CheckContext, spent: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Towards one class at a time, on what no attempt has fooled yet; repaired twins first.

    Where gradients are straight, `standard` takes the cascade: it finds as much for fewer passes.
    After a run of the cascade, only repaired twins are searched.

    Cost: for each of those at most `spent` passes on average; twice that where repairs are tried.
    """
    table = AttemptTable()
    wanted = worth_trying(context.stored("gradient-truth").tables)
    for rows in batches:
        left = rows
        for attempt in _targeted_attempts(context, rows, spent, wanted):
            if len(left):
                left = table.add(context, attempt, left)
    return table.evidence({"spent": spent})


def _took_each_class(context: CheckContext) -> bool:
    """Whether the audited attack itself searched towards one class at a time, to the same end."""
    return context.run.request.attack == "cascade"


def _targeted_attempts(
    context: CheckContext, rows: Rows, spent: int, wanted: Sequence[str]
) -> list[Attempt]:
    twins = {repair.name: repair.twin for repair in find_repairs(context, rows)} if wanted else {}
    chosen = [name for name in wanted if name in twins][:1]

    def towards_classes(twin: Twin) -> Method:
        return partial(search_towards_classes, context, twin, plan=_PLANS[spent])

    attempts = [
        Attempt(f"{name}, targeted", "repair", towards_classes(twins[name])) for name in chosen
    ]
    if _took_each_class(context):
        return attempts
    if spent == _STANDARD and gradients_are_straight(context):
        own = Attempt("cascade", "targeted", by_attack(context, "cascade", {}))
    else:
        own = Attempt("targeted", "targeted", towards_classes(plain(context.model)))
    return [*attempts, own]


def _cost_of_targeted(context: CheckContext, spent: int) -> float:
    if _took_each_class(context):
        return 0.0
    return len(context.survivors) * _PLANS[spent].cost * context.draws


def _swept(context: CheckContext, steps: int) -> np.ndarray:
    return evenly(context.clean_correct, _SWEPT)


def _gather_sweep(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Attack some samples in larger and larger balls: as the audit does, and as well as possible.

    Where gradients are straight, the two are one.

    Cost: at most `_SWEPT` · 2 · 5 · `steps` passes.
    """
    frames, known = [], context.stored("gradient-truth").tables
    for rows in batches:
        raw = Gradient(plain(context.model), cross_entropy, context.meter, draws=context.draws)
        sources: dict[str, GradientSource] = {"raw": raw}
        if not gradients_are_straight(context):
            sources["best"] = best_candidate(context, rows, known).source
        for name, source in sources.items():
            for eps in _radii(context, rows):
                settings = Search(steps, random_start=True, eps=eps)
                with context.seeded(f"sweep {name} {eps}"):
                    fooled = search(context, source, rows, settings).fooled
                columns = {
                    "sample": rows.sample.cpu().numpy(),
                    "sight": name,
                    "eps": eps,
                    "fooled": fooled.cpu().numpy(),
                }
                frames.append(pd.DataFrame(columns))
    tables = {"sweep": pd.concat(frames, ignore_index=True)} if frames else {}
    return ProbeEvidence({"steps": steps}, tables)


def _radii(context: CheckContext, rows: Rows) -> list[float]:
    values = rows.images[0].numel()
    whole = {"Linf": 0.5, "L2": 0.5 * values**0.5, "L1": 0.5 * values}[context.budget.norm]
    smaller = [factor * context.eps for factor in _FACTORS if factor * context.eps < whole]
    return [*smaller, whole]


def _cost_of_sweep(context: CheckContext, steps: int) -> float:
    return min(len(context.survivors), _SWEPT) * 2 * len(_FACTORS) * steps * context.draws


def _summary(evidence: Evidence, found: BeyondChance) -> str:
    return (
        f"{len(found.only)} survivors are fooled only by a longer search, or by one towards a "
        "chosen class"
    )


def _signs(evidence: Evidence) -> Signs | None:
    """Signs of a hindered search, each of which warns.

    Accuracy does not fall to chance in the largest ball, or is not monotone in the radius; the loss
    was still rising.
    """
    rising = still_rising(evidence.trajectory, every=max(1, -(-evidence.n // _FOLLOWED)))
    curve = _accuracy_against_radius(evidence)
    if not evidence.tried("budget") and not curve:
        return None
    warnings = []
    if rising is not None and rising > _RISING:
        warnings.append(
            f"the loss still rose by {rising:.0%} in the last quarter of the attack's steps"
        )
    for sight in sorted({name for name, _ in curve}):
        values = [curve[key] for key in sorted(curve) if key[0] == sight]
        along = _ALONG.get(sight, sight)
        if any(later > earlier + _NOT_MONOTONE for earlier, later in pairwise(values)):
            warnings.append(f"accuracy rises where the attack may change more ({along})")
        if values[-1] > 1.0 / evidence.num_classes + _ABOVE_CHANCE:
            warnings.append(
                f"{values[-1]:.0%} stay right where the attack may make any image of them ({along})"
            )
    points = [
        {"sight": sight, "eps": eps, "accuracy": accuracy}
        for (sight, eps), accuracy in curve.items()
    ]
    return Signs(warnings, {"rising": rising, "curve": points})


def _accuracy_against_radius(evidence: Evidence) -> dict[tuple[str, float], float]:
    """Accuracy of the swept samples by direction and radius, in rising order."""
    probe = evidence.probe("sweep")
    if probe is None or "sweep" not in probe.tables:
        return {}
    table = probe.tables["sweep"]
    accuracy = (~table["fooled"].astype(bool)).groupby([table["sight"], table["eps"]]).mean()
    found = zip(accuracy.index.tolist(), accuracy.tolist(), strict=True)
    return {(str(sight), float(eps)): float(value) for (sight, eps), value in sorted(found)}


def still_rising(trajectory: Iterable[pd.DataFrame], every: int = 1) -> float | None:
    """By what share the median loss over the paths grew in the last quarter of the calls.

    None where paths are too short to tell.

    Args:
        trajectory: in pieces.
        every: follow so few of the samples: those whose number it divides.
    """
    parts = [_loss_by_step(table, every) for table in trajectory]
    losses = pd.concat(parts) if parts else pd.Series(dtype="float64")
    median = losses.groupby(level=0).median()
    if len(median) < 8:
        return None
    at = int(0.75 * (len(median) - 1))
    rise = float(median.iloc[-1] - median.iloc[at])
    return rise / max(float(median.max() - median.min()), 1e-12)


def _loss_by_step(table: pd.DataFrame, every: int) -> pd.Series:
    """Finite losses of every so many samples, by the number of the sample's own call."""
    rows = table[table["sample"].notna() & ~table["bookkeeping"] & np.isfinite(table["loss"])]
    number = rows["sample"].astype("int64")
    rows = rows[number % every == 0].sort_values("call", kind="stable")
    step = rows.groupby(rows["sample"].astype("int64")).cumcount()
    losses: pd.Series = pd.Series(rows["loss"].to_numpy(), index=step.to_numpy())
    return losses


_QUESTION = ChanceQuestion(
    check=NAME,
    source="Carlini et al. 2019; Pintor et al. 2022",
    families=("budget", "further", "targeted"),
    needs=("budget",),
    probe="longer",
    level="standard",
    missing=lambda evidence: f"no longer search was run: {evidence.why_not('longer')}",
    summary=_summary,
    advice=lambda evidence: "evaluate with more steps and restarts",
    data=lambda evidence, found: {},
    weaker=(
        "loss", "temperature", "float64", "saturating", "repair", "smoothed", "estimated", "eot",
    ),
    signs=_signs,
    search="the longer search",
)  # fmt: skip

_WHY = (
    "If more steps find more adversarial examples, the audited attack stopped too early. If the "
    "radius allows any image, a working attack must fool the model on nearly every sample."
)

_LOOK = FirstLook(nearest=0.2, spread=0.05)
"""At `standard`."""

CHECK = Check(
    NAME,
    _QUESTION.source,
    _WHY,
    _QUESTION.judge,
    (
        Probe(
            "targeted",
            InParts(_gather_targeted, not_fooled_yet),
            {"fast": 5, "standard": _STANDARD, "full": 550},
            _cost_of_targeted,
            order=50,
            stored_as=lambda context, spent: f"targeted-{spent}",
            reads=("gradient-truth",),
            waits=True,
        ),
        *in_two_looks(
            Probe(
                "longer",
                InParts(_gather_longer),
                {"standard": 60, "full": 300},
                lambda context, steps: len(context.survivors) * 2 * steps * context.draws,
                order=60,
                stored_as=lambda context, steps: f"longer-{steps}",
                reads=("gradient-truth",),
            ),
            _LOOK,
        ),
        Probe(
            "sweep",
            InParts(_gather_sweep, _swept),
            {"standard": 10, "full": 10},
            _cost_of_sweep,
            order=70,
            per_survivor=False,
            reads=("gradient-truth",),
        ),
    ),
)
