"""Figures 2 and 4 to 12: the flat basin around an image, its take-off point, and its width.

One attack runs on the unscaled model. The model with its logits times s then classifies the points
of that attack; the scale moves no decision. This is the paper's "along the trajectories of these
attacks". The paper gives no formula for the width; here it is that of `geometry.basin`, with the
loss tolerance `LOSS_TOLERANCE`, and the study reports how its result depends on the tolerance.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from flatguard.checks.statistics import median_interval, rank_correlation
from flatguard.geometry.basin import LOSS_TOLERANCE, Basins, basins
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.path import Path, walk_all

_CLAIMS = statements("walter", "basins")
_SCALES = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
_TOLERANCES = (0.001, 0.01, 0.1)
_TAKE_OFF_SHARE = 0.1
"""The normalised loss has taken off where it is above this share of its range on the path."""


def basins_of(subject: Subject) -> Outcome:
    """Figure 2 on one model."""
    whole = walk_all(subject)
    return _outcome(subject, whole[whole.correct()], (_robust_accuracy(whole),))


def basins_of_two(subject: Subject) -> Outcome:
    """Figure 12: an adversarially trained model, beside a plain one where a second is given."""
    whole = walk_all(subject)
    path = whole[whole.correct()]
    return _outcome(subject, path, (_times_as_wide(subject, path), _trace(subject, path)))


def _outcome(subject: Subject, path: Path, first: tuple[Claim, ...]) -> Outcome:
    log_kappa = path.log_kappa(subject.head())[0]
    width = basins(path.visited())
    others = (_rises(path), _take_off(path), _width_varies(width), _correlation(path, log_kappa))
    return Outcome((*first, *others), _figures(path, log_kappa, width))


def _robust_accuracy(path: Path) -> Claim:
    n = len(path.labels)
    left = int((path.correct() & ~(path.wrong()[-1] & path.inside)).sum())
    clean = int(path.correct().sum())
    lost = (clean - left) / n
    return _CLAIMS["robust-accuracy"].share(left, n, also=lost <= 0.05, clean=clean / n)


def _rises(path: Path) -> Claim:
    medians = [float(path.rise(scale)[-1].median()) for scale in _SCALES]
    last = path.rise(_SCALES[-1])[-1]
    return _CLAIMS["rise-at-s50"].judge(
        medians[-1],
        interval=median_interval(last.tolist()),
        samples=len(last),
        also=all(a >= b for a, b in pairwise(medians[2:])),
        medians=", ".join(f"{m:.2g}" for m in medians),
        mean=float(last.mean()),
    )


def _take_off(path: Path) -> Claim:
    gentle, steep = (_take_off_steps(path, scale) for scale in (0.5, 50.0))
    both = np.isfinite(gentle) & np.isfinite(steep)
    if not both.any():
        return _CLAIMS["take-off"].not_measured()
    return _CLAIMS["take-off"].share_of(
        steep[both] > gentle[both],
        passes=_TAKE_OFF_SHARE,
        steep=np.median(steep[both]),
        gentle=np.median(gentle[both]),
        steps=len(path.l2) - 1,
    )


def _take_off_steps(path: Path, scale: float) -> np.ndarray:
    """The first step above the share of the path's range; NaN where the loss never rose."""
    above = _normalised(path.loss(scale)).numpy() > _TAKE_OFF_SHARE
    return np.where(above.any(axis=0), above.argmax(axis=0).astype(float), math.nan)


def _normalised(loss: Tensor) -> Tensor:
    """The rise of each `(m, n)` path over its largest; NaN where nothing rose."""
    rise = loss - loss[:1]
    return rise / rise.amax(dim=0).where(rise.amax(dim=0) > 0, math.nan)


def _width_varies(found: Basins) -> Claim:
    """By quartiles; a basin that was never left is wider than its path."""
    claim = _CLAIMS["width"]
    widths = np.where(found.left, found.width, math.inf)
    low, middle, high = np.quantile(widths, [0.25, 0.5, 0.75], method="higher")
    inside = f"{1 - float(found.left.mean()):.0%} of the basins were never left"
    if not math.isfinite(low):
        return claim.not_measured(inside=inside, known="")
    far = float(found.width.max())
    ratio = min(high, far) / low
    if not math.isfinite(high) and ratio < claim.at_least:
        known = f", so the ratio is only known to be above {ratio:.2f}"
        return claim.not_measured(inside=inside, known=known)
    return claim.judge(
        ratio,
        samples=len(widths),
        tolerance=LOSS_TOLERANCE,
        bound="" if math.isfinite(high) else ", a lower bound",
        low=low,
        middle=f"{middle:.3g}" if math.isfinite(middle) else f"over {far:.3g}",
        inside=inside,
    )


def _correlation(path: Path, log_kappa: Tensor) -> Claim:
    found = {
        tolerance: rank_correlation(
            basins(path.visited(), tolerance).ranked().tolist(), log_kappa.tolist()
        )
        for tolerance in _TOLERANCES
    }
    main = found[LOSS_TOLERANCE]
    if main is None:
        return _CLAIMS["correlation"].not_measured()
    others = ", ".join(
        f"{tolerance:g}: {'none' if value is None else f'{value.rho:.2f}'}"
        for tolerance, value in found.items()
    )
    return _CLAIMS["correlation"].judge(
        main.rho, interval=main.interval, samples=main.n, others=others
    )


def _times_as_wide(subject: Subject, path: Path) -> Claim:
    if len(subject.contexts) < 2:
        return _CLAIMS["times-as-wide"].not_measured()
    plain = walk_all(replace(subject, contexts=subject.contexts[1:]))
    plain = plain[plain.correct()]
    ours, theirs = basins(path.visited()), basins(plain.visited())
    return _CLAIMS["times-as-wide"].judge(
        float(np.median(ours.width) / np.median(theirs.width)),
        interval=_ratio_interval(ours.width, theirs.width),
        samples=len(ours.width),
        tolerance=LOSS_TOLERANCE,
        take_off=_take_off_distance(path) / _take_off_distance(plain),
        inside=1 - float(ours.left.mean()),
    )


def _ratio_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float] | None:
    """Of a ratio of medians, from the ends of both 95% intervals: it holds with at least 90%."""
    first, second = median_interval(above.tolist()), median_interval(below.tolist())
    if first is None or second is None or second[0] <= 0:
        return None
    return first[0] / second[1], first[1] / second[0]


def _take_off_distance(path: Path) -> float:
    """The median distance at which the normalised loss takes off at s = 50."""
    step = _take_off_steps(path, _SCALES[-1])
    kept = np.isfinite(step)
    return float(np.median(path.l2.numpy()[step[kept].astype(int), np.flatnonzero(kept)]))


def _trace(subject: Subject, path: Path) -> Claim:
    head = subject.head()
    traces = (path.log_kappa(head) - head.log_weight_norm_squared()).exp()
    clean, end = float(traces[0].median()), float(traces[-1].median())
    return _CLAIMS["trace"].judge(
        end / clean,
        interval=_ratio_interval(traces[-1].numpy(), traces[0].numpy()),
        samples=len(path.labels),
        clean=clean,
        end=end,
    )


def _figures(path: Path, log_kappa: Tensor, found: Basins) -> dict[str, Any]:
    """The numbers behind the panels: quantiles, so that the file stays small."""
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    panels: dict[str, Any] = {"quantiles": levels, "a_rise": {}, "b_normalised_loss": {}}
    for scale in _SCALES:
        panels["a_rise"][f"{scale:g}"] = np.quantile(path.rise(scale)[-1], levels).tolist()
        share = _normalised(path.loss(scale)).nanmedian(dim=1).values
        panels["b_normalised_loss"][f"{scale:g}"] = [
            float(v) if math.isfinite(v) else None for v in share
        ]
    panels["c_width"] = np.quantile(found.width, levels).tolist()
    kept = slice(0, 200)
    panels["d_log_kappa"] = [round(float(v), 3) for v in log_kappa[kept]]
    panels["d_width"] = [round(float(v), 5) for v in found.width[kept]]
    return panels
