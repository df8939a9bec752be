"""How the model behaves when it is called: repeatable, alone, stateless, without side effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.checks.preflight.calls import Caller, TrainedParts, difference, watched_input
from flatguard.checks.preflight.facts import Difference, InputGradient, differs, is_batch_effect
from flatguard.errors import one_line
from flatguard.targets.initial import copy_of

_NEAR = 2 / 255
"""How far the near images are from those that were answered."""
_DRAWS = 5
"""Passes over the same images of a model whose random numbers cannot be repeated."""
_DRIFT = 0.5
"""Draws of a generator differ alike; a state that drifts differs the more, the more calls."""


@dataclass(frozen=True)
class Answered:
    """The batch in which images were classified before.

    Attributes:
        images: all of it.
        logits: the model's answers then.
        rows: the positions of the images that are shown again.
    """

    images: Tensor
    logits: Tensor
    rows: Tensor


def measure_behaviour(
    caller: Caller, images: Tensor, others: Tensor, before: Answered | None = None
) -> dict[str, Any]:
    """Fields of `PreflightFacts` about calls.

    Args:
        caller: calls the model.
        images: the images that are shown again and again.
        others: as many other images.
        before: how they were classified before, in one batch.
    """
    parts = TrainedParts()
    with watched_input(caller.model) as written, parts:
        first = caller.logits(images)
    again = caller.logits(images)
    repeated = difference(first, again)
    found: dict[str, Any] = {
        "trained_parts": tuple(sorted(parts.names)),
        "writes_input": any(written),
        "repeated": repeated,
        "other_seed": difference(first, caller.logits(images, draw=1)),
    }
    half = len(images) // 2
    if differs(repeated):
        draws = [first, again, *(caller.logits(images) for _ in range(_DRAWS - 2))]
        found["own_generator"] = _are_draws(draws)
        if found["own_generator"] and half and len(others) >= len(images):
            beside = torch.cat([images[:half], others[half : len(images)]])
            drawn = [caller.logits(beside)[:half] for _ in range(_DRAWS)]
            found["batch_draws_apart"] = are_apart([draw[:half] for draw in draws], drawn)
        return found  # every other comparison would show the same again
    if not half:
        return found
    found |= _in_other_batches(caller, images, others, first, differs(found["other_seed"]))
    compared = found.get("smaller_batch")
    if compared is not None and before is not None and not is_batch_effect(compared):
        found |= _as_before(caller, first, before)
    return found


def _in_other_batches(
    caller: Caller, images: Tensor, others: Tensor, first: Tensor, randomised: bool
) -> dict[str, Any]:
    """Every second image again: each between other images, in a smaller batch, and one alone."""
    found: dict[str, Any] = {}
    half = len(images) // 2
    # A place in the batch has its own random numbers, so only a model without any moves there.
    kept, there = slice(0, 2 * half, 2), slice(0 if randomised else 1, 2 * half, 2)
    beside = others[: len(images)].clone()
    if len(beside) == len(images):
        beside[there] = images[kept]
        if not torch.equal(beside, images):
            found["other_neighbours"] = difference(first[kept], caller.logits(beside)[there])
    if not randomised:
        smaller = difference(first[kept], caller.logits(images[kept]))
        found["smaller_batch"] = (
            smaller if is_batch_effect(smaller) else _alone(caller, images, first) or smaller
        )
    return found


def _alone(caller: Caller, images: Tensor, first: Tensor) -> Difference | None:
    """How the logits of an image differ where it is alone in its batch; None if they do not."""
    try:
        alone = caller.logits(images[:1])
    except Exception:  # a model may raise anything; `single_image_error` says so
        return None
    found = difference(first[:1], alone) if alone.shape == first[:1].shape else None
    return found if found is not None and is_batch_effect(found) else None


def _as_before(caller: Caller, first: Tensor, before: Answered) -> dict[str, Any]:
    """Compare with the answers in the larger batch before; empty where they are the same.

    Where the larger batch is answered as before, its size decides; else the calls between do.
    """
    found = difference(before.logits[before.rows].to(first.device), first)
    if not is_batch_effect(found):
        return {}
    again = difference(before.logits.to(first.device), caller.logits(before.images))
    return {"repeated" if differs(again) else "smaller_batch": found}


def _are_draws(logits: list[Tensor]) -> bool:
    """Whether repeated passes differ as independent draws do: all alike, none the same."""
    within = _distances(logits)
    return min(within) > _DRIFT * max(within)


def are_apart(ones: list[Tensor], others: list[Tensor]) -> bool:
    """Whether every draw of one kind is farther from the other kind than its own kind lies apart.

    Draws of one and the same distribution fall apart so in fewer than one of a hundred cases.
    """
    within = [*_distances(ones), *_distances(others)]
    between = [_distance(one, other) for one in ones for other in others]
    return min(between) > max(within)


def _distances(draws: list[Tensor]) -> list[float]:
    return [_distance(one, other) for n, one in enumerate(draws) for other in draws[:n]]


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm())


def single_image_error(caller: Caller, image: Tensor, classes: int) -> str | None:
    """Why a batch of one image does not work; None if it does."""
    caller.forwards += 1
    with torch.no_grad():
        try:
            logits = caller.model(image.to(caller.device))
        except Exception as error:  # a model may raise anything
            return f"raises {type(error).__name__}: {one_line(error)}"
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    return None if shape == (1, classes) else f"gives {shape} in place of (1, {classes})"


def measure_state(caller: Caller, original: nn.Module, images: Tensor) -> dict[str, Any]:
    """Ask the model that answered before, and new copies of it, the same.

    Args:
        caller: its model has answered before.
        original: has not answered anything.
        images: that were answered before.
    """
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images.device)
    near = (images + _NEAR * (2 * noise - 1)).clamp(0, 1)
    seen, seen_near = caller.logits(images), caller.logits(near)
    fresh = copy_of(original)
    new_near, new = caller.logits(near, model=fresh), caller.logits(images, model=fresh)
    found = difference(seen, new)
    if differs(found):  # perhaps because this copy has answered the near images
        found = difference(seen, caller.logits(images, model=copy_of(original)))
    return {"after_calls": found, "near_image": difference(seen_near, new_near)}


def measure_random_state(caller: Caller, original: nn.Module, images: Tensor) -> dict[str, Any]:
    """The same for a model whose random numbers cannot be repeated: draws are compared.

    Args:
        caller: its model has answered before.
        original: has not answered anything.
        images: that were answered before.
    """
    fresh = copy_of(original)
    seen = [caller.logits(images) for _ in range(_DRAWS)]
    new = [caller.logits(images, model=fresh) for _ in range(_DRAWS)]
    return {"state_draws_apart": are_apart(seen, new)}


def in_training(model: nn.Module) -> tuple[str, ...]:
    """The modules in training mode. There are none before the first call."""
    return tuple(
        name or "the model itself" for name, module in model.named_modules() if module.training
    )[:8]


def values(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and buffers, by name; the tensors themselves."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def changed_values(before: Mapping[str, Tensor], model: nn.Module) -> tuple[str, ...]:
    """The parameters and buffers that have other values than before."""
    found = []
    for name, now in values(model).items():
        then = before.get(name)
        if then is None or then.shape != now.shape or not _same(then, now):
            found.append(name)
    return tuple(found)[:8]


def _same(one: Tensor, other: Tensor) -> bool:
    try:
        one, other = one.detach(), other.detach()
        return torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num())
    except (RuntimeError, NotImplementedError, TypeError):
        return True  # lazy, meta and packed tensors cannot be compared


def measure_gradient(
    caller: Caller, images: Tensor, answered: Tensor | None = None
) -> InputGradient:
    """The gradient of the margin between the two highest logits; the scale does not kill it.

    Args:
        caller: calls the model.
        images: on which the gradient is taken.
        answered: their logits without gradient; None where no two calls need to agree.
    """
    caller.forwards += len(images)
    count = len(images)
    try:
        leaf = images.to(caller.device).clone().requires_grad_(True)
        with torch.enable_grad():
            logits = caller.model(leaf)
            if not logits.requires_grad:
                return InputGradient(images=count, absent=True, zero=0, not_finite=0)
            best = logits.double().topk(2, dim=1).values
            (slope,) = torch.autograd.grad((best[:, 0] - best[:, 1]).sum(), leaf, allow_unused=True)
    except Exception as error:  # a model may raise anything
        why = f"{type(error).__name__}: {one_line(error)}"
        return InputGradient(images=count, absent=True, zero=0, not_finite=0, error=why)
    if slope is None:
        return InputGradient(images=count, absent=True, zero=0, not_finite=0)
    rows = slope.flatten(1)
    finite = rows.isfinite().all(dim=1)
    zero = int(((rows == 0).all(dim=1) & finite).sum())
    other = None if answered is None else difference(answered.to(logits.device), logits.detach())
    return InputGradient(
        images=count,
        absent=False,
        zero=zero,
        not_finite=int((~finite).sum()),
        other_logits=other if is_batch_effect(other) else None,
    )
