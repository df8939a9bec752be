"""Figures 2 and 4 to 12: the flat basin around an image, its take-off point, and its width.

One attack runs on the model as it is. Its points are then shown to the model with its logits times
s, which moves no decision: the paper's "along the trajectories of these attacks". The paper gives
no formula for the width; here it is `geometry.basin`'s, with the loss tolerance `LOSS_TOLERANCE`,
and the study says how its answer moves with the tolerance.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from flatguard.checks.statistics import interval, median_interval, rank_correlation
from flatguard.geometry.basin import LOSS_TOLERANCE, Basins, basins
from flatguard.studies.claim import Claim, agrees_if, not_measured, share
from flatguard.studies.study import Outcome, Protocol, Subject
from flatguard.studies.walter.path import Path, walk_all

SCALES = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
TOLERANCES = (0.001, 0.01, 0.1)
TAKE_OFF_SHARE = 0.1
"""The normalised loss has taken off where it is above this share of its range on the path."""

WEAK_L2 = Protocol(
    "torchattacks:PGDL2", "L2", "0.025", {"steps": 25, "alpha": 0.001, "random_start": False}
)
LONG_L2 = Protocol(
    "torchattacks:PGDL2", "L2", "0.5", {"steps": 50, "alpha": 0.01, "random_start": False}
)
STRONG = 0.5
"""A rank correlation of this magnitude is called strong."""

FLAT_RISE = 1e-3
"""A median rise below this has approached zero."""


def basins_of(subject: Subject) -> Outcome:
    """Figure 2 on one model."""
    whole = walk_all(subject)
    return _outcome(subject, whole[whole.right()], (_robust_accuracy(whole),))


def basins_of_two(subject: Subject) -> Outcome:
    """Figure 12: an adversarially trained model, beside a plain one where a second is given."""
    whole = walk_all(subject)
    path = whole[whole.right()]
    return _outcome(subject, path, (_times_as_wide(subject, path), _trace(subject, path)))


def _outcome(subject: Subject, path: Path, first: tuple[Claim, ...]) -> Outcome:
    log_kappa = path.log_kappa(subject.head())[0]
    width = basins(path.visited())
    others = (
        _rises(path), _take_off(path), _width_varies(width), _correlation(path, log_kappa),
    )  # fmt: skip
    return Outcome((*first, *others), _figures(path, log_kappa, width))


def _robust_accuracy(path: Path) -> Claim:
    n = len(path.labels)
    left = int((path.right() & ~(path.wrong()[-1] & path.inside)).sum())
    clean = int(path.right().sum())
    fall = (clean - left) / n
    return share(
        left,
        n,
        name="robust-accuracy",
        claim="The attack is weak: nearly all that is right stays right.",
        paper="90.33% robust accuracy",
        rule="the attack takes at most 5% of all samples from the clean accuracy",
        verdict=agrees_if(fall <= 0.05),
        note=f"Clean accuracy {clean / n:.1%}; another network than the paper's.",
    )


def _rises(path: Path) -> Claim:
    medians = [float(path.rise(scale)[-1].median()) for scale in SCALES]
    last = path.rise(SCALES[-1])[-1]
    mean = float(last.mean())
    falling = all(a >= b for a, b in pairwise(medians[2:]))
    return Claim(
        name="rise-at-s50",
        claim="Scaling up makes the rise of the loss approach zero.",
        paper="approaches zero for large s",
        ours=medians[-1],
        interval=median_interval(last.tolist()),
        samples=len(last),
        rule=f"the median rise falls from s = 1 on, to below {FLAT_RISE:g} at s = 50",
        verdict=agrees_if(falling and medians[-1] < FLAT_RISE),
        note=f"Medians at s = 0.25 ... 50: {', '.join(f'{m:.2g}' for m in medians)}. The mean at "
        f"s = 50 is {mean:.2g}: the few that leave their basin pay for all.",
    )


def _take_off(path: Path) -> Claim:
    gentle, steep = (_take_off_steps(path, scale) for scale in (0.5, 50.0))
    both = np.isfinite(gentle) & np.isfinite(steep)
    later, n = int((steep[both] > gentle[both]).sum()), int(both.sum())
    rule = "in more than half of the paths it is later, by the whole interval"
    if not n:
        return not_measured("take-off", TAKE_OFF_CLAIM, "no number", rule, "no loss rose")
    low, _ = interval(later, n)
    return share(
        later,
        n,
        name="take-off",
        claim=TAKE_OFF_CLAIM,
        paper="no number: at s = 0.5 from the first step, at s = 50 nearly the end",
        rule=rule,
        verdict=agrees_if(low > 0.5),
        note=f"Share of paths whose normalised loss passes {TAKE_OFF_SHARE:.0%} of its range later "
        f"at s = 50 than at s = 0.5; median step {np.median(steep[both]):.0f} against "
        f"{np.median(gentle[both]):.0f} of {len(path.l2) - 1}.",
    )


TAKE_OFF_CLAIM = "For large s the loss stays flat until a late take-off point."


def _take_off_steps(path: Path, scale: float) -> np.ndarray:
    """The first step above the share of the path's range; NaN where the loss never rose."""
    share = normalised(path.loss(scale)).numpy()
    above = share > TAKE_OFF_SHARE
    return np.where(above.any(axis=0), above.argmax(axis=0).astype(float), math.nan)


def normalised(loss: Tensor) -> Tensor:
    """The rise of each `(m, n)` path over its largest; NaN where nothing rose."""
    rise = loss - loss[:1]
    return rise / rise.amax(dim=0).where(rise.amax(dim=0) > 0, math.nan)


def _width_varies(found: Basins) -> Claim:
    """By quartiles; a basin that was never left is wider than its path."""
    name, claim = "width", "The width of the basin differs from sample to sample."
    rule = "the upper quartile of the widths is at least 1.5 times the lower"
    widths = np.where(found.left, found.width, math.inf)
    low, middle, high = np.quantile(widths, [0.25, 0.5, 0.75], method="higher")
    inside = f"{1 - float(found.left.mean()):.0%} of the basins were never left"
    if not math.isfinite(low):
        return not_measured(name, claim, "no number", rule, f"{inside} by this weak attack")
    far = float(found.width.max())
    ratio = min(high, far) / low
    if not math.isfinite(high) and ratio < 1.5:
        why = f"{inside} by this weak attack, so the ratio is only known to be above {ratio:.2f}"
        return not_measured(name, claim, "no number", rule, why)
    return Claim(
        name=name,
        claim=claim,
        paper="no number",
        ours=ratio,
        samples=len(widths),
        rule=rule,
        verdict=agrees_if(ratio >= 1.5),
        note=f"Ratio of the quartiles of the distance (ℓ2) at which the loss has risen by "
        f"{LOSS_TOLERANCE:g}"
        + ("" if math.isfinite(high) else ", a lower bound")
        + f"; lower quartile {low:.3g}, median {_width(middle, far)}; {inside}.",
    )


def _width(value: float, far: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else f"over {far:.3g}"


def _correlation(path: Path, log_kappa: Tensor) -> Claim:
    name, claim = "correlation", "The flatter at the clean image (s = 1), the wider the basin."
    rule = f"ρ is at most -{STRONG:g}"
    found = {
        tolerance: rank_correlation(
            basins(path.visited(), tolerance).ranked().tolist(), log_kappa.tolist()
        )
        for tolerance in TOLERANCES
    }
    main = found[LOSS_TOLERANCE]
    if main is None:
        return not_measured(name, claim, "strong", rule, "all basins are equally wide")
    others = ", ".join(
        f"{tolerance:g}: {'none' if value is None else f'{value.rho:.2f}'}"
        for tolerance, value in found.items()
    )
    return Claim(
        name=name,
        claim=claim,
        paper="a strong correlation, no number",
        ours=main.rho,
        interval=main.interval,
        samples=main.n,
        rule=rule,
        verdict=agrees_if(main.rho <= -STRONG),
        note="Spearman's ρ of width and log κ, basins that were never left tied as the widest; by "
        f"loss tolerance {others}.",
    )


def _times_as_wide(subject: Subject, path: Path) -> Claim:
    name, claim = "times-as-wide", "Adversarial training makes basins about 20 times as wide."
    rule = "the medians' ratio is at least 10"
    if len(subject.jobs) < 2:
        why = "a plain model to compare with was not given; name it by a second --model"
        return not_measured(name, claim, "20 times", rule, why)
    plain = walk_all(Subject(subject.jobs[1:], subject.count, subject.progress))
    ours, theirs = basins(path.visited()), basins(plain[plain.right()].visited())
    ratio = float(np.median(ours.width) / np.median(theirs.width))
    return Claim(
        name=name,
        claim=claim,
        paper="20 times",
        ours=ratio,
        interval=_ratio_interval(ours.width, theirs.width),
        samples=len(ours.width),
        rule=rule,
        verdict=agrees_if(ratio >= 10),
        note="Ratio of the medians under one attack, by the loss tolerance "
        f"{LOSS_TOLERANCE:g}; by the take-off point of the normalised loss at s = 50 it is "
        f"{_take_off_ratio(path, plain):.2f}. The paper's 20 is the ratio of the radii that its "
        "two attacks explore. The interval joins the ends of both medians' "
        f"95% intervals, so it holds with at least 90%. {1 - float(ours.left.mean()):.0%} of the "
        "wide ones were never left.",
    )


def _ratio_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float] | None:
    """Of a ratio of medians, from the ends of both 95% intervals: it holds with at least 90%."""
    first, second = median_interval(above.tolist()), median_interval(below.tolist())
    if first is None or second is None or second[0] <= 0:
        return None
    return first[0] / second[1], first[1] / second[0]


def _take_off_ratio(path: Path, plain: Path) -> float:
    """Of the median distances at which the normalised loss takes off at s = 50."""
    found = []
    for one in (path, plain[plain.right()]):
        step = _take_off_steps(one, SCALES[-1])
        kept = np.isfinite(step)
        columns = np.arange(len(step))[kept]
        found.append(float(np.median(one.l2.numpy()[step[kept].astype(int), columns])))
    return found[0] / found[1]


def _trace(subject: Subject, path: Path) -> Claim:
    head = subject.head()
    traces = (path.log_kappa(head) - head.log_weight_norm_squared()).exp()
    clean, end = float(traces[0].median()), float(traces[-1].median())
    return Claim(
        name="trace",
        claim="tr H stays of one size along the attack, since the network is less sure.",
        paper="0.6 clean, 1.0 adversarial",
        ours=end / clean,
        interval=_ratio_interval(traces[-1].numpy(), traces[0].numpy()),
        samples=len(path.labels),
        rule="the ratio of the medians, adversarial to clean, is between 1/5 and 5",
        verdict=agrees_if(0.2 <= end / clean <= 5),
        note=f"Median tr H {clean:.2g} clean, {end:.2g} at the end; the paper's ratio is 1.7. tr H "
        "depends on the scale of the features, so only the ratio is compared.",
    )


def _figures(path: Path, log_kappa: Tensor, found: Basins) -> dict[str, Any]:
    """The numbers behind the panels: quantiles, so that the file stays small."""
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    panels: dict[str, Any] = {"quantiles": levels, "a_rise": {}, "b_normalised_loss": {}}
    for scale in SCALES:
        rise = path.rise(scale)[-1].numpy()
        panels["a_rise"][f"{scale:g}"] = [float(v) for v in np.quantile(rise, levels)]
        share = normalised(path.loss(scale)).nanmedian(dim=1).values
        panels["b_normalised_loss"][f"{scale:g}"] = [
            float(v) if math.isfinite(v) else None for v in share
        ]
    panels["c_width"] = [float(v) for v in np.quantile(found.width, levels)]
    kept = slice(0, 200)
    panels["d_log_kappa"] = [round(float(v), 3) for v in log_kappa[kept]]
    panels["d_width"] = [round(float(v), 5) for v in found.width[kept]]
    return panels
