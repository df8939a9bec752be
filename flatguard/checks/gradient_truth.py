"""Gradient truth: does the target do what its gradient predicts?

At the clean image, at a random point of the ball and at the end of the audited path, for a few
samples that survived:

- whether the gradient of the margin exists, is finite, and is exactly 0, and the same for the
  cross-entropy that attacks use;
- *at small scale*, the margin's change by central differences along the gradient's own direction,
  in float64 where the model supports it, against the change that the gradient predicts; both are
  stored as if a whole radius continued like that, in units of the sample's temperature;
- *at the budget's scale*, how far one step of half a radius along each candidate direction (the
  raw gradient, repaired, smoothed and estimated ones) lowers the target's margin, in the same
  units: at the clean image a drop of 2 is the boundary;
- beside the clean image, whether small random steps do to the margin what the gradient predicts,
  and what repaired gradients predict (`search/response.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.checks.check import Check, Probe, every_level
from flatguard.checks.context import CheckContext, Rows, evenly
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.finding import Finding, Status, not_run
from flatguard.checks.gradient_evidence import (
    MOST,
    SOME,
    USEFUL,
    GradientEvidence,
    gradient_evidence,
    is_partly_missing,
    mean_drops,
    measured_gradients,
    median_agreement,
)
from flatguard.checks.missing_evidence import how_to_run
from flatguard.checks.search.candidates import (
    GOOD_ENOUGH,
    Candidate,
    find_repairs,
    plain_candidates,
    repaired_candidates,
    repaired_only,
)
from flatguard.checks.search.exits import exits_matter
from flatguard.checks.search.gradients import cross_entropy, margin_loss, margin_of
from flatguard.checks.search.response import responses
from flatguard.geometry.ball import direction, project, random_step
from flatguard.twins.outputs import Twin, plain
from flatguard.twins.repairs import IN_WORDS, double

NAME = "gradient-truth"
_SOURCE = "Athalye et al. 2018; Pintor et al. 2022; central differences in float64"

_DIRECTIONS = 2
_SMALL_64, _SMALL_32 = 1e-6, 5e-2
"""Shares of the radius for central differences in float64 and in float32."""

_JITTER = 1e-2

_ADVICE = {
    "logarithm": "attack the logarithm of the probabilities that the model returns",
    "smoothed": "attack with gradients that are averaged over noise on the image",
    "estimated": "attack with gradients that are estimated from the model's outputs (SPSA)",
}


def _gather(context: CheckContext, samples: int) -> ProbeEvidence:
    """Compare the gradients of the target and of its repaired twins with what the target does.

    Cost: for each of at most `samples` samples and three points, about ten forward passes and,
    where plain gradients do not lead far and are not straight, about 60 more for repaired, smoothed
    and estimated ones.
    """
    chosen = evenly(context.survivors, samples)
    gradients, drops, answers, met = [], [], [], {}
    is_double, exits = False, False
    for rows in context.rows(chosen):
        wide = double(context.model, rows.images[:1])
        is_double = wide is not None
        found = plain_candidates(context)
        met.update({repair.name: repair.met for repair in find_repairs(context, rows)})
        exits = exits or _exits_matter(context, rows, met)
        for point, images in _points(context, rows).items():
            gradients.append(_gradients(context, rows, images, wide).assign(point=point))
            drops.append(_drops(context, rows, images, found).assign(point=point))
        beside, repaired = _beside(context, rows.images), repaired_only(context, rows)
        answers.append(responses(context, rows, beside, wide, [found[0], *repaired]))
    tables = {"gradients": gradients, "drops": drops, "responses": answers}
    plainly = {name: pd.concat(parts) for name, parts in tables.items() if parts}
    is_straight = bool(gradients) and _is_straight(context, met, exits, plainly)
    partly = bool(answers) and is_partly_missing(median_agreement(plainly["responses"]))
    if drops and not is_straight and (partly or not _is_good_enough(plainly["drops"])):
        for rows in context.rows(chosen):
            for point, images in _points(context, rows).items():
                found = repaired_candidates(context, rows)
                drops.append(_drops(context, rows, images, found).assign(point=point))
    facts = {
        "precision": "float64" if is_double else "float32",
        "met": met,
        "exits_matter": exits,
        "looked_at": len(chosen),
        "straight": is_straight,
    }
    if not gradients:
        return ProbeEvidence(facts)
    return ProbeEvidence(facts, {name: pd.concat(parts) for name, parts in tables.items()})


def _exits_matter(context: CheckContext, rows: Rows, met: dict[str, dict[str, int]]) -> bool:
    """Whether values that leave torch come back into the logits; only where any leave it."""
    if not any("numpy" in stages for stages in met.values()):
        return False
    context.meter.add(2 * len(rows))
    with context.seeded("exits"):
        return exits_matter(context.model, rows.images)


def _is_straight(
    context: CheckContext,
    met: dict[str, dict[str, int]],
    exits: bool,
    tables: dict[str, pd.DataFrame],
) -> bool:
    """Whether gradients are straight; not where anything else than the image decides the answer."""
    if context.randomised or context.remembers or context.decides_alone:
        return False
    probe = ProbeEvidence({"met": met, "exits_matter": exits}, tables)
    return measured_gradients(probe, median_agreement(tables["responses"])).is_straight


def _is_good_enough(drops: pd.DataFrame) -> bool:
    return any(drop >= GOOD_ENOUGH for drop in mean_drops(drops).values())


def _beside(context: CheckContext, images: Tensor) -> Tensor:
    """A point next to each image. Pixels are multiples of 1/255, where defences often jump."""
    with context.seeded("beside"):
        step = random_step(images, _JITTER * context.eps, context.budget.norm)
    return (images + step).clamp(0, 1)


def _points(context: CheckContext, rows: Rows) -> dict[str, Tensor]:
    with context.seeded("points"):
        step = random_step(rows.images, context.eps, context.budget.norm)
    somewhere = project(rows.images + step, rows.images, context.eps, context.budget.norm)
    return {"clean": rows.images, "random": somewhere, "adversarial": rows.adversarial}


def _gradients(
    context: CheckContext, rows: Rows, images: Tensor, wide: Twin | None
) -> pd.DataFrame:
    target = plain(context.model)
    images = _beside(context, images)
    with context.seeded("truth"):
        loss = _autograd(context, target, images, rows, cross_entropy)
    with context.seeded("truth"):
        own = _autograd(context, target, images, rows, margin_loss)
    share = _SMALL_32 if wide is None else _SMALL_64
    h = context.eps * share
    inside = (images > h) & (images < 1.0 - h)
    step = direction(own.gradient, context.budget.norm) * inside
    predicted = h * (own.gradient.double() * step.double()).flatten(1).sum(dim=1)
    wider = images.double() if wide is not None else images
    twin = wide or target
    along = h * step.to(wider.dtype)
    higher = _margin(context, twin, wider + along, rows)
    lower = _margin(context, twin, wider - along, rows)
    here = _margin(context, twin, wider, rows)
    changes = [_moved(context, twin, wider, rows, here, i) for i in range(_DIRECTIONS)]
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
class _Autograd:
    """A gradient, and for each row `ok`, `zero`, `missing` or `not finite`."""

    gradient: Tensor
    state: list[str]


def _autograd(
    context: CheckContext, twin: Twin, images: Tensor, rows: Rows, loss: Callable[..., Tensor]
) -> _Autograd:
    context.meter.add(len(images))
    x = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = loss(twin(x), rows).sum()
    found = None
    if value.requires_grad:
        (found,) = torch.autograd.grad(value, x, allow_unused=True)
    if found is None:
        return _Autograd(torch.zeros_like(images), ["missing"] * len(images))
    flat = found.flatten(1)
    finite, zero = flat.isfinite().all(dim=1).tolist(), (flat == 0).all(dim=1).tolist()
    states = [
        "not finite" if not is_finite else "zero" if is_zero else "ok"
        for is_finite, is_zero in zip(finite, zero, strict=True)
    ]
    return _Autograd(torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), states)


def _margin(context: CheckContext, twin: Twin, images: Tensor, rows: Rows) -> Tensor:
    """The margin over the temperature; the same random numbers in every call."""
    context.meter.add(len(images))
    with context.seeded("truth"), torch.no_grad():
        return margin_of(twin(images).decides, rows)


def _moved(
    context: CheckContext, twin: Twin, images: Tensor, rows: Rows, here: Tensor, number: int
) -> Tensor:
    """How much the margin changes at a random point on the ball's edge."""
    with context.seeded(f"direction {number}"):
        signs = direction(torch.randn_like(images), context.budget.norm)
    there = _margin(context, twin, images + context.eps * signs, rows)
    return (there - here).abs()


def _drops(
    context: CheckContext, rows: Rows, images: Tensor, found: list[Candidate]
) -> pd.DataFrame:
    """What one step along each candidate does to the target's own margin."""
    frames = []
    before = _mean_margin(context, images, rows)
    for candidate in found:
        with context.seeded(f"drop {candidate.name}"):
            view = candidate.source(images, rows)
        step = 0.5 * context.eps * direction(view.gradient, context.budget.norm)
        moved = (images + step).clamp(0, 1)
        frames.append(
            pd.DataFrame(
                {
                    "sample": rows.sample.cpu().numpy(),
                    "candidate": candidate.name,
                    "alive": (view.gradient != 0).flatten(1).any(dim=1).cpu().numpy(),
                    "drop": (before - _mean_margin(context, moved, rows)).cpu().numpy(),
                }
            )
        )
    table: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table


def _mean_margin(context: CheckContext, images: Tensor, rows: Rows) -> Tensor:
    with context.seeded("drop"):
        draws = [margin_of(context.logits(images), rows) for _ in range(context.draws)]
    return torch.stack(draws).mean(dim=0)


def _norm(gradient: Tensor) -> np.ndarray:
    size = torch.linalg.vector_norm(gradient.double().flatten(1), dim=1)
    found: np.ndarray = size.cpu().numpy()
    return found


def _cost(context: CheckContext, samples: int) -> float:
    return min(len(context.survivors), samples) * 3 * 70 * context.draws


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where most gradients are absent or contradicted; warns from a tenth on."""
    found = gradient_evidence(evidence)
    if found is None:
        if not evidence.reported and evidence.probe(NAME) is not None:
            return Finding(
                check=NAME, status="pass", source=_SOURCE,
                summary="no sample survived, so gradients did not hinder the attack",
            )  # fmt: skip
        why = f"no gradient was measured: {evidence.why_not(NAME)}"
        return not_run(NAME, _SOURCE, why, how_to_run(evidence, NAME))
    value = max(found.unavailable, found.dead, found.no_loss)
    useless = found.usual_drop < USEFUL or found.leaves_torch or found.is_partly_missing
    doubtful = value > SOME or found.vanished > SOME or useless
    status: Status = "fail" if value > MOST else "warn" if doubtful else "pass"
    return Finding(
        check=NAME,
        status=status,
        summary="; ".join([*_observations(found), *_repaired_stages(evidence, found)]),
        value=value,
        threshold=MOST,
        samples=found.points,
        source=_SOURCE,
        next=_advice(found) if status != "pass" else None,
        data={
            "unavailable": found.unavailable, "dead": found.dead, "vanished": found.vanished,
            "contradicted": found.contradicted, "linear": found.linear, "states": found.states,
            "drops": found.drops, "agreement": found.agreement,
        },
    )  # fmt: skip


def _advice(found: GradientEvidence) -> str | None:
    if found.best in ("raw", "tempered", None):
        return None
    if found.best in _ADVICE:
        return _ADVICE[found.best]
    replaced = IN_WORDS.get(found.best)
    if replaced is not None:
        return f"attack with {replaced} replaced by something smooth in the backward pass"
    return f"attack along the gradient that is called {found.best}"


def _observations(found: GradientEvidence) -> list[str]:
    lines = []
    if found.dead > 0:
        lines.append(
            f"at {found.dead:.0%} of {found.points} points the margin between the right class and "
            "the next has no gradient"
        )
    if found.contradicted > 0:
        lines.append(
            f"at {found.contradicted:.0%} of {found.points} points the model's output changes "
            "otherwise than its gradient says"
        )
    if found.vanished > 0:
        same = found.no_loss == found.vanished
        exactly = "" if same else f", and is exactly 0 at {found.no_loss:.0%}"
        lines.append(
            f"the gradient of cross-entropy, which most attacks follow, vanishes at "
            f"{found.vanished:.0%} of {found.points} points{exactly}"
        )
    if found.leaves_torch:
        lines.append("the computation leaves torch, so gradients miss a part of the model")
    if found.is_partly_missing:
        lines.append(
            "small random changes of the image move the output otherwise than the gradient "
            f"predicts: correlation {found.agreement['raw']:.2f}, in place of 1"
            f"{_explained_by(found)}"
        )
    if found.usual_drop < USEFUL:
        lines.append("a step along the gradient brings no image nearer to a wrong answer")
    return lines or [f"the model does what its gradient predicts at all {found.points} points"]


def _explained_by(found: GradientEvidence) -> str:
    name = max(found.agreement, key=lambda name: found.agreement[name])
    if name == "raw":
        return ""
    return f"; {found.agreement[name]:.2f} with {IN_WORDS.get(name, name)} made smooth"


def _repaired_stages(evidence: Evidence, found: GradientEvidence) -> list[str]:
    """Which stages cut the gradient; or that none is known, and what the verdict then rests on."""
    probe = evidence.probe(NAME)
    is_cut = max(found.unavailable, found.dead) > MOST or found.is_partly_missing
    if probe is None or not is_cut:
        return []
    met = probe.facts.get("met", {})
    stages = sorted({stage for name, stages in met.items() if name != "all" for stage in stages})
    if stages:
        return [f"steps that cut the gradient, repaired here: {', '.join(stages)}"]
    return [
        "the step that cuts the gradient was not found: the verdict rests on attacks that need no "
        "gradient"
    ]


_WHY = (
    "Gradient attacks follow the gradient. If the gradient is missing, zero or wrong, a failed "
    "attack is no evidence of robustness."
)

CHECK = Check(
    NAME,
    _SOURCE,
    _WHY,
    _judge,
    (
        Probe(
            NAME,
            _gather,
            every_level(16),
            _cost,
            order=10,
            per_survivor=False,
            reads=(),
        ),
    ),
    decisive=True,
)
