r"""Finds the final linear map of a model: a layer, or operations of its forward pass.

The operations of two forward passes give their features φ and weights W. The logits z must be
$\sum_i a_i W_i \varphi_i + b$ up to a shift, computed again from φ and W, with one a and b for all
images; a third pass, on other images, must agree. So what happens to the logits after the
operation, such as a mask or a change in place, cannot be part of a proven head, and neither can
weights that depend on the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.environment.randomness import preserved
from flatguard.errors import ran_out_of_memory
from flatguard.geometry.precision import wide
from flatguard.targets.head import (
    RELATIVE_TOLERANCE,
    HeadSearch,
    find_head,
    relative_mismatch,
)
from flatguard.targets.linear_operations import Product, Reading, name_of, readings
from flatguard.targets.operation_head import UNDIVIDED, Division, OperationHead, Part
from flatguard.targets.operation_watch import Place, Watch, is_compiled, is_sealed
from flatguard.targets.restored import restored

_MOST_CANDIDATES = 64
_EQUAL = 1e-5
"""Weights whose relative difference is smaller are the same, up to rounding."""

_VARIES = 1e-2
"""The largest error of a fit over how much the logits vary from image to image, in float32.

Without it, an offset explains logits that hardly vary.
"""

_DEPENDS = (
    "the weights of its last linear operation, {name}, depend on the image, or change from call "
    "to call"
)
_COMPILED = (
    "a part of the model is compiled, and hooks do not see the operations there; evaluate the "
    "model before torch.compile"
)
_QUANTISED = (
    "its last layers are quantised: they round their input, so the logits are no linear map of it"
)


def find_final_map(model: nn.Module, images: Tensor, name: str | None = None) -> HeadSearch:
    """Search for the head: first among the layers, then among the operations.

    Args:
        model: in eval mode.
        images: at least one image in [0, 1]; more images make a stronger proof.
        name: test this layer only.

    Cost: one forward pass; four more where no layer is the head.
    """
    search = find_head(model, images, name)
    if search.head is not None or name is not None:
        return search
    found = _search_operations(model, images)
    if found.head is not None or found.reason is not None:
        return found
    return search


def _search_operations(model: nn.Module, images: Tensor) -> HeadSearch:
    """The search leaves the model as it was: one that counts its calls, or fails on a new image."""
    if is_sealed(model):
        return HeadSearch(None, _reason(model))
    with restored(model), preserved(images.device), torch.no_grad():
        try:
            return _find_operations(model, images)
        except Exception as error:  # whatever a model raises on images that it did not expect
            if ran_out_of_memory(error):
                raise
            return HeadSearch(None, None)


@dataclass(frozen=True)
class _Candidate:
    """An operation that may be a part of the head, in one forward pass or in two.

    Attributes:
        name: of the torch function.
        features: φ, `(n, d)` in float64.
        weights: W, `(k, d)` in float64.
        own: the operation's own result, `(n, k)`.
        bias: what it adds to W φ, `(k,)`.
        precision: of the operation.
        is_fixed: whether the weights are the same for all images.
        division: of the result, after the operation.
    """

    place: Place
    reading: Reading
    name: str
    features: Tensor
    weights: Tensor
    own: Tensor
    bias: Tensor
    precision: torch.dtype
    is_fixed: bool
    division: Division = UNDIVIDED

    def divided(self) -> Iterator[_Candidate]:
        """The same as parts of cosine classifiers that divide by norms after the operation."""
        norms = self.weights.norm(dim=1)
        for division in (Division(True, norms), Division(True), Division(False, norms)):
            features, own = division.of(self.features, self.own)
            weights = self.weights if division.by_weights is None else self.weights / norms[:, None]
            bias = (own - features @ weights.T).mean(dim=0)
            yield replace(
                self, features=features, own=own, weights=weights, bias=bias, division=division
            )

    def joined(self, other: _Candidate) -> _Candidate:
        """The same operation in two passes."""
        return replace(
            self,
            features=torch.cat([self.features, other.features]),
            own=torch.cat([self.own, other.own]),
            is_fixed=self.is_fixed and other.is_fixed and _equal(self.weights, other.weights),
        )


@dataclass(frozen=True)
class _Pass:
    """One forward pass: its logits, its candidates, and which modules each module called."""

    logits: Tensor
    candidates: dict[tuple[Place, Reading], _Candidate]
    called: dict[str, set[str]]


def _find_operations(model: nn.Module, images: Tensor) -> HeadSearch:
    classes = model(images).shape[1]
    first, second = (_observed(model, each, classes) for each in (images, 1.0 - images))
    logits = torch.cat([first.logits, second.logits])
    both = [
        candidate.joined(second.candidates[key])
        for key, candidate in first.candidates.items()
        if key in second.candidates
    ][-_MOST_CANDIDATES:]
    fixed = [each for each in both if each.is_fixed]
    fit = _fit(fixed, logits) or _fit_one(
        [one for each in fixed[::-1] for one in each.divided()], logits
    )
    if fit is None:
        loose = _fit_one(both[::-1], logits)
        reason = _reason(model) if loose is None else _DEPENDS.format(name=_called(loose.used))
        return HeadSearch(None, reason)
    head = _head(model, fit, {**first.called, **second.called})
    if not _agrees(head, images.flip(-1), _coarsest(fit.used)):
        return HeadSearch(None, _reason(model))
    return HeadSearch(head, None)


def _reason(model: nn.Module) -> str | None:
    modules = list(model.modules())
    if any(is_compiled(module) for module in modules):
        return _COMPILED
    if any("quantized" in type(module).__module__ for module in modules):
        return _QUANTISED
    return None


def _observed(model: nn.Module, images: Tensor, classes: int) -> _Pass:
    found: dict[tuple[Place, Reading], _Candidate] = {}

    def listener(place: Place, function: Callable[..., Any], product: Product) -> None:
        for reading in readings(product, len(images), classes):
            found[place, reading] = _candidate(place, reading, name_of(function), product)
            if len(found) > 2 * _MOST_CANDIDATES:
                del found[next(iter(found))]

    watch = Watch(model, None, listener)
    with watch.active():
        logits = model(images)
    return _Pass(logits, found, watch.called)


def _candidate(place: Place, reading: Reading, name: str, product: Product) -> _Candidate:
    features, every = wide(reading.features(product)).clone(), wide(reading.weights(product))
    own = wide(reading.output(product)).clone()
    return _Candidate(
        place,
        reading,
        name,
        features,
        every[0].clone(),
        own=own,
        bias=(own - features @ every[0].T).mean(dim=0),
        precision=product.out.dtype,
        is_fixed=_equal(every, every[:1].expand_as(every)),
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= _EQUAL * one.abs().max())


@dataclass(frozen=True)
class _Fit:
    """z = Σ aᵢ oᵢ + `further` up to a shift, with the operations' own results o."""

    used: tuple[_Candidate, ...]
    factors: tuple[float, ...]
    further: Tensor


def _fit(candidates: Sequence[_Candidate], logits: Tensor) -> _Fit | None:
    """The last operation that gives the logits alone, or the fewest that give them together."""
    alone = _fit_one(candidates[::-1], logits)
    return _fit_several(candidates, logits) if alone is None else alone


def _fit_one(candidates: Sequence[_Candidate], logits: Tensor) -> _Fit | None:
    for candidate in candidates:
        fit = _fitted([candidate], logits)
        if fit is not None:
            return fit
    return None


def _fit_several(candidates: Sequence[_Candidate], logits: Tensor) -> _Fit | None:
    """Backward elimination, from the first operation on."""
    kept = list(candidates[-(logits.numel() // 3) :])  # three numbers for each factor
    fit = _fitted(kept, logits) if kept else None
    if fit is None:
        return None
    for candidate in list(kept):
        fewer = [each for each in kept if each is not candidate]
        smaller = _fitted(fewer, logits) if fewer else None
        if smaller is not None:
            kept, fit = fewer, smaller
    return fit


def _fitted(candidates: Sequence[_Candidate], logits: Tensor) -> _Fit | None:
    """Least squares on rows and columns without their means, which are c and b."""
    z = _centred(wide(logits))
    results = [_centred(each.own) for each in candidates]
    columns = torch.stack([_without_offset(each).flatten() for each in results], dim=1)
    if not bool(torch.isfinite(columns).all() and torch.isfinite(z).all()) or not columns.any():
        return None
    size = columns.norm(dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
    target = _without_offset(z).flatten()[:, None]
    solved = torch.linalg.lstsq((columns / size).cpu(), target.cpu(), driver="gelsd").solution
    factors = [_rounded(float(one)) for one in solved[:, 0].to(size) / size]
    explained = sum(a * result for a, result in zip(factors, results, strict=True))
    further = (z - explained).mean(dim=0)
    error = (z - explained - further).abs().max()
    precision = _coarsest(candidates)
    most = max(_VARIES, 16 * torch.finfo(precision).eps)
    is_close = bool(error <= most * target.abs().max())
    if not is_close or not _explains(explained + further, z, precision, 1):
        return None
    return _Fit(tuple(candidates), tuple(factors), further)


def _explains(found: Tensor, logits: Tensor, precision: torch.dtype, roundings: int) -> bool:
    off = relative_mismatch(logits, found, 1.0)
    return bool((off <= _tolerance(precision, roundings)).all())


def _coarsest(candidates: Sequence[_Candidate]) -> torch.dtype:
    return max((each.precision for each in candidates), key=lambda one: torch.finfo(one).eps)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=1, keepdim=True)


def _without_offset(x: Tensor) -> Tensor:
    return x - x.mean(dim=0, keepdim=True)


def _rounded(factor: float) -> float:
    """Six digits, so that rounding on another machine gives the same factor."""
    return float(f"{factor:.6g}")


def _tolerance(precision: torch.dtype, roundings: int) -> float:
    return max(RELATIVE_TOLERANCE, roundings * torch.finfo(precision).eps)


def _head(model: nn.Module, fit: _Fit, called: dict[str, set[str]]) -> OperationHead:
    blocks: list[_Candidate] = []
    numbers = []
    for candidate in fit.used:
        same = [i for i, one in enumerate(blocks) if _equal(one.weights, candidate.weights)]
        numbers.append(same[0] if same else len(blocks))
        if not same:
            blocks.append(candidate)
    totals = [0.0] * len(blocks)
    for number, factor in zip(numbers, fit.factors, strict=True):
        totals[number] += factor
    whole = [total if abs(total) > 1e-9 else 1.0 for total in totals]  # views that are subtracted
    parts = tuple(
        Part(each.place, each.reading, factor, number, factor / whole[number], each.division)
        for each, factor, number in zip(fit.used, fit.factors, numbers, strict=True)
    )
    weights = [one.weights * factor for one, factor in zip(blocks, whole, strict=True)]
    own = sum(one.bias * factor for one, factor in zip(fit.used, fit.factors, strict=True))
    owners = {part.place.owner for part in parts}
    return OperationHead(
        _called(fit.used), model, parts,
        frozenset().union(*(called.get(owner, set()) for owner in owners)) - owners,
        torch.cat(weights, dim=1), fit.further + own, fit.further,
        _tolerance(_coarsest(fit.used), 4),
    )  # fmt: skip


def _called(used: Sequence[_Candidate]) -> str:
    named = [f"{one.name} in {one.place.owner or 'the model'}" for one in used]
    return ", ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "")


def _agrees(head: OperationHead, images: Tensor, precision: torch.dtype) -> bool:
    """Whether the head, as it is watched in an attack, explains the logits of other images."""
    seen: list[tuple[Tensor, Tensor]] = []

    def listener(features: Tensor | None, output: Tensor) -> None:
        if features is not None:
            seen.append((features, output))

    with head.watched(listener):
        logits = head.model(images)
    if len(seen) != 1 or seen[0][1].shape != logits.shape:
        return False
    features, output = seen[0]
    again = wide(features) @ head.weight.T + head.offset
    return _explains(again, logits, precision, 16) and _explains(output, logits, precision, 4)
