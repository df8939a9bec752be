"""Gradient truth: what autograd says against what the target does.

At the clean image, at a random point of the ball and at the end of the audited path, for a few
samples that survived:

- whether the gradient of the margin exists, is finite, and is exactly 0, and the same for the
  cross-entropy that attacks take;
- *at small scale*, the margin's change by central differences along the gradient's own direction,
  in float64 where the model takes it, against the change that the gradient predicts; both are
  stored as if a whole radius went on like that, in units of the sample's temperature;
- *at the budget's scale*, how far one step of half a radius along each candidate direction (the
  raw gradient, repaired, smoothed and estimated ones) really lowers the target's margin, in the
  same units: at the clean image a drop of 2 is the boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.checks.gathering.lab import Found, Lab, Rows
from flatguard.checks.gathering.repairs import FITTED_ON, PASSES, Repair, double, repairs
from flatguard.checks.gathering.search import direction, project, random_step
from flatguard.checks.gathering.sights import (
    Estimated,
    Gradient,
    Sight,
    Twin,
    cross_entropy,
    margin_loss,
    margin_of,
    plain,
    tempered,
)

LOOKED_AT = 16
DIRECTIONS = 2
SMALL_64, SMALL_32 = 1e-6, 5e-2
"""Shares of the radius for central differences in float64 and in float32."""

JITTER = 1e-2
GOOD_ENOUGH = 1.0
"""Where a plain step of half a radius lowers the margin by half of it, no repair is looked for."""

SMOOTH_DRAWS, SMOOTH_SHARE = 8, 0.5
SPSA_PAIRS, SPSA_SHARE = 16, 0.5


@dataclass(frozen=True)
class Candidate:
    """A direction that may lead an attack.

    Attributes:
        name: as it is shown.
        sight: along cross-entropy over a temperature.
        margin: along the margin of the same repaired twin; None where nothing was repaired.
    """

    name: str
    sight: Sight
    margin: Sight | None = None


def look_at_gradients(lab: Lab) -> Found:
    """Store what the gradients of the target and of its repaired twins are worth.

    Cost: for each of at most `LOOKED_AT` samples and three points, about ten forward passes and,
    where plain gradients do not lead far, about 60 more for repaired, smoothed and estimated ones.
    """
    chosen = lab.spread(lab.survivors, LOOKED_AT)
    gradients, drops, met = [], [], {}
    is_double = False
    for rows in lab.rows(chosen):
        wide = double(lab.model, rows.images[:1])
        is_double = wide is not None
        found = plain_candidates(lab)
        met.update({repair.name: repair.met for repair in find_repairs(lab, rows)})
        for point, images in _points(lab, rows).items():
            gradients.append(_gradients(lab, rows, images, wide).assign(point=point))
            drops.append(_drops(lab, rows, images, found).assign(point=point))
    if drops and not _good_enough(pd.concat(drops)):
        for rows in lab.rows(chosen):
            for point, images in _points(lab, rows).items():
                found = repaired_candidates(lab, rows)
                drops.append(_drops(lab, rows, images, found).assign(point=point))
    facts = {
        "precision": "float64" if is_double else "float32",
        "met": met,
        "looked_at": len(chosen),
    }
    tables = {"gradients": pd.concat(gradients), "drops": pd.concat(drops)} if gradients else {}
    return Found(facts, tables)


def plain_candidates(lab: Lab) -> list[Candidate]:
    """The target's own gradient, of the logits as they are and over their temperature."""
    target, meter, draws = plain(lab.model), lab.meter, lab.draws
    return [
        Candidate("raw", Gradient(target, cross_entropy, meter, draws=draws)),
        Candidate("tempered", Gradient(target, tempered, meter, draws=draws)),
    ]


def repaired_candidates(lab: Lab, rows: Rows) -> list[Candidate]:
    """Every mended direction: repaired stages, smoothed and estimated gradients."""
    found = [
        Candidate(
            repair.name,
            Gradient(repair.twin, tempered, lab.meter, draws=lab.draws),
            Gradient(repair.twin, margin_loss, lab.meter, draws=lab.draws),
        )
        for repair in find_repairs(lab, rows)
    ]
    eps = lab.eps * _unit(lab, rows)
    found.append(Candidate("smoothed", smoothed(lab, plain(lab.model), eps)))
    found.append(Candidate("estimated", estimated(lab, eps)))
    return found


def find_repairs(lab: Lab, rows: Rows) -> list[Repair]:
    """The repairs that have something to mend, looked for on a few of these images."""
    lab.meter.add(PASSES * min(FITTED_ON, len(rows)))
    with lab.seeded("repairs"):
        return repairs(lab.model, rows.images)


def candidates(lab: Lab, rows: Rows) -> list[Candidate]:
    """All of them."""
    return plain_candidates(lab) + repaired_candidates(lab, rows)


def _good_enough(drops: pd.DataFrame) -> bool:
    clipped = drops["drop"].clip(-2.0, 4.0).groupby(drops["candidate"]).mean()
    return float(clipped.max()) >= GOOD_ENOUGH


def smoothed(lab: Lab, twin: Twin, spread: float, draws: int = SMOOTH_DRAWS) -> Gradient:
    """Gradients averaged over noise within a fraction of the budget."""
    noise = SMOOTH_SHARE * spread
    return Gradient(twin, tempered, lab.meter, draws=max(draws, lab.draws), noise=noise)


def estimated(lab: Lab, spread: float, pairs: int = SPSA_PAIRS) -> Estimated:
    """Gradients estimated from values alone."""
    return Estimated(lab.model, lab.meter, pairs=pairs, spread=SPSA_SHARE * spread)


def _unit(lab: Lab, rows: Rows) -> float:
    """How much noise a value gets for a whole noise vector of length 1 in the budget's norm."""
    values = rows.images[0].numel()
    return float({"Linf": 1.0, "L2": values**-0.5, "L1": 1.0 / values}[lab.budget.norm])


def _beside(lab: Lab, images: Tensor) -> Tensor:
    """A point next to each image: pixels are multiples of 1/255, where defences like to jump."""
    with lab.seeded("beside"):
        step = random_step(images, JITTER * lab.eps, lab.budget.norm)
    return (images + step).clamp(0, 1)


def _points(lab: Lab, rows: Rows) -> dict[str, Tensor]:
    with lab.seeded("points"):
        step = random_step(rows.images, lab.eps, lab.budget.norm)
    somewhere = project(rows.images + step, rows.images, lab.eps, lab.budget.norm)
    return {"clean": rows.images, "random": somewhere, "adversarial": rows.adversarial}


def _gradients(lab: Lab, rows: Rows, images: Tensor, wide: Twin | None) -> pd.DataFrame:
    target = plain(lab.model)
    images = _beside(lab, images)
    with lab.seeded("truth"):
        loss = _autograd(lab, target, images, rows, cross_entropy)
    with lab.seeded("truth"):
        own = _autograd(lab, target, images, rows, margin_loss)
    share = SMALL_32 if wide is None else SMALL_64
    h = lab.eps * share
    inside = (images > h) & (images < 1.0 - h)
    step = direction(own.gradient, lab.budget.norm) * inside
    predicted = h * (own.gradient.double() * step.double()).flatten(1).sum(dim=1)
    wider = images.double() if wide is not None else images
    twin = wide or target
    along = h * step.to(wider.dtype)
    higher = _margin(lab, twin, wider + along, rows)
    lower = _margin(lab, twin, wider - along, rows)
    here = _margin(lab, twin, wider, rows)
    changes = [_moved(lab, twin, wider, rows, here, i) for i in range(DIRECTIONS)]
    frame: pd.DataFrame = pd.DataFrame(
        {
            "sample": rows.sample.cpu().numpy(),
            "loss_state": loss.state,
            "loss_norm": _norm(loss.gradient),
            "margin_state": own.state,
            "margin_norm": _norm(own.gradient),
            "predicted": (predicted / rows.temperature / share).cpu().numpy(),
            "measured": ((lower - higher) / 2.0 / share).cpu().numpy(),
            "moves": torch.stack(changes).amax(dim=0).cpu().numpy(),
        }
    )
    return frame


@dataclass(frozen=True)
class Autograd:
    """A gradient, and for each row `ok`, `zero`, `missing` or `not finite`."""

    gradient: Tensor
    state: list[str]


def _autograd(
    lab: Lab, twin: Twin, images: Tensor, rows: Rows, loss: Callable[..., Tensor]
) -> Autograd:
    lab.meter.add(len(images))
    x = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = loss(twin(x), rows).sum()
    found = None
    if value.requires_grad:
        (found,) = torch.autograd.grad(value, x, allow_unused=True)
    if found is None:
        return Autograd(torch.zeros_like(images), ["missing"] * len(images))
    flat = found.flatten(1)
    finite, zero = flat.isfinite().all(dim=1).tolist(), (flat == 0).all(dim=1).tolist()
    states = [
        "not finite" if not is_finite else "zero" if is_zero else "ok"
        for is_finite, is_zero in zip(finite, zero, strict=True)
    ]
    return Autograd(torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), states)


def _margin(lab: Lab, twin: Twin, images: Tensor, rows: Rows) -> Tensor:
    """The margin over the temperature; the same random numbers in every call."""
    lab.meter.add(len(images))
    with lab.seeded("truth"), torch.no_grad():
        return margin_of(twin(images).decides, rows)


def _moved(lab: Lab, twin: Twin, images: Tensor, rows: Rows, here: Tensor, number: int) -> Tensor:
    """How far the margin moves at a random point on the ball's edge."""
    with lab.seeded(f"direction {number}"):
        signs = direction(torch.randn_like(images), lab.budget.norm)
    there = _margin(lab, twin, images + lab.eps * signs, rows)
    return (there - here).abs()


def _drops(lab: Lab, rows: Rows, images: Tensor, found: list[Candidate]) -> pd.DataFrame:
    """What one step along each candidate does to the target's own margin."""
    frames = []
    before = _mean_margin(lab, images, rows)
    for candidate in found:
        with lab.seeded(f"drop {candidate.name}"):
            view = candidate.sight(images, rows)
        step = 0.5 * lab.eps * direction(view.gradient, lab.budget.norm)
        moved = (images + step).clamp(0, 1)
        frames.append(
            pd.DataFrame(
                {
                    "sample": rows.sample.cpu().numpy(),
                    "candidate": candidate.name,
                    "alive": (view.gradient != 0).flatten(1).any(dim=1).cpu().numpy(),
                    "drop": (before - _mean_margin(lab, moved, rows)).cpu().numpy(),
                }
            )
        )
    table: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table


def _mean_margin(lab: Lab, images: Tensor, rows: Rows) -> Tensor:
    with lab.seeded("drop"):
        draws = [margin_of(lab.logits(images), rows) for _ in range(lab.draws)]
    return torch.stack(draws).mean(dim=0)


def _norm(gradient: Tensor) -> np.ndarray:
    size = torch.linalg.vector_norm(gradient.double().flatten(1), dim=1)
    found: np.ndarray = size.cpu().numpy()
    return found
