"""Decisions inside an unmodified model, and forward passes in which they are forced.

A `TorchFunctionMode` sees every operation of the model's forward pass. A *gate* is an operation
with a discrete result that has one decision, or a few, for each image:

- comparisons, `sign`, `round`, casts and `bucketize` of a score;
- `argmax`, `max`, `topk`, `sort` over a few scores;
- `max`, `min`, `median`, `sort` over a few tensors of logits, where each is one choice;
- scores that leave torch (`item`, `tolist`, `numpy`), on which Python decides.

Where a gate is forced, the same computation goes on with that choice for the whole batch, and with
a gradient through `detach` and `no_grad`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flatguard.switches.slack import Answer, Slack
from flatguard.twins.straight_through import (
    CASTING,
    COMPARING,
    LEAVING,
    ROUNDING,
    name_of,
)

MOST_CHOICES = 16
"""A gate with more choices is no switch between networks."""

_FEW = 8
"""The most comparisons for each image, or buckets."""

_FAR = 1e6
"""A score that leaves torch is forced to this many times its size."""

_RISING = {name for name, sign in COMPARING.items() if sign > 0}
_FALLING = COMPARING.keys() - _RISING
_EQUAL = {"eq", "ne", "__eq__", "__ne__", "not_equal", "isclose"}
_INDEX = {"argmax": 1.0, "argmin": -1.0, "max": 1.0, "min": -1.0, "topk": 1.0}
_SORTING = {"sort", "argsort", "msort"}
_MIDDLE = {"median", "nanmedian", "kthvalue", "mode", "quantile", "nanquantile"}
_LEAVING = LEAVING | {"__float__"}


@dataclass(frozen=True)
class Place:
    """Where in the model's code a gate is.

    Attributes:
        code, instruction: of the model's function that calls the operation.
        number: how many calls of that instruction were before, for decisions on a whole batch;
            -1 for decisions on single images, which belong together.
    """

    code: CodeType
    instruction: int
    number: int


@dataclass
class Gate:
    """What a gate was given, and what it may be forced to.

    Attributes:
        name: the operation.
        given: its first argument, at its first call.
        options: numbers of its choices.
        jumps: whether the output may jump where the choice changes; the larger of two logits does
            not.
    """

    name: str
    given: Tensor
    options: tuple[int, ...]
    jumps: bool = True


Forced = Mapping[Place, int]


class Gates(TorchFunctionMode):
    """Intercepts the gates of one forward pass.

    Args:
        rows: how many images there are.
        classes: how many logits each has.
        forced: gates, with the choice that each makes.

    Attributes:
        seen: all gates, in the order of their first call.
        slack: how far the images are on the forced side.
    """

    def __init__(self, rows: int, classes: int, forced: Forced):
        super().__init__()
        self._rows, self._classes, self._forced = rows, classes, forced
        self._calls: Counter[tuple[CodeType, int]] = Counter()
        self._classes_of: dict[int, Answer] = {}
        self.seen: dict[Place, Gate] = {}
        self.slack = Slack()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """One operation of the model."""
        kwargs, name = kwargs or {}, name_of(func)
        own = args[0] if args and isinstance(args[0], Tensor) else None
        if name in ("_set_grad_enabled", "set_grad_enabled") and not args[0]:
            return None
        if own is None:
            return func(*args, **kwargs)
        if name in ("detach", "data") and own.requires_grad:
            return own
        if name in _LEAVING:
            own = own.detach()
            result = func(own, *args[1:], **kwargs)
        else:
            result = func(*args, **kwargs)
        if name == "argmax" and own.ndim == 2 and result.numel() == self._rows:
            self._classes_of[id(result)] = Answer(result, own)
        gate = _gate(name, own, args, kwargs, result, self._rows, self._classes)
        return result if gate is None else self._decide(gate, result)

    def _decide(self, gate: _Operation, result: Any) -> Any:
        place = self._place(gate.is_single and self._rows > 1)
        jumps = not gate.is_members
        self.seen.setdefault(place, Gate(gate.name, gate.own.detach(), gate.options, jumps))
        if place not in self._forced:
            return result
        option = self._forced[place]
        slack = self._agreement(gate, option) if gate.name in _EQUAL else gate.slack(option)
        if slack is not None and slack.numel() == self._rows:
            self.slack.whole.append(slack.reshape(self._rows))
        elif slack is not None and slack.numel() == 1:
            self.slack.single.setdefault(place, []).append(slack.reshape(()))
        return gate.forced(option)

    def _agreement(self, gate: _Operation, option: int) -> Tensor | None:
        """How surely two answers are the same class, or are not; None: no answers are compared."""
        one, other = (self._classes_of.get(id(each)) for each in (gate.own, gate.other))
        if one is None or other is None or option > 1:
            return None
        same: Tensor = torch.minimum(one.leads(), other.leads()).amax(dim=1)
        is_same = option == int(gate.name in ("eq", "__eq__", "isclose"))
        return same if is_same else -same

    def _place(self, is_single: bool) -> Place:
        """The innermost frame that is neither torch's nor this file's."""
        frame = sys._getframe(2)
        while frame.f_back is not None and _is_inside(frame.f_code.co_filename):
            frame = frame.f_back
        key = (frame.f_code, frame.f_lasti)
        number = -1 if is_single else self._calls[key]
        self._calls[key] += 1
        return Place(*key, number)


def _is_inside(file: str) -> bool:
    return file == __file__ or "/torch/" in file.replace("\\", "/")


@dataclass
class _Operation:
    """A gate's call.

    Attributes:
        name: of the operation.
        own: its first argument.
        other: what a comparison compares it with.
        dim: along which an index is chosen; None for other gates.
        result: what the operation returns.
        options: numbers of its choices.
        is_single: whether it decides on one image, or on the whole batch at once.
    """

    name: str
    own: Tensor
    result: Any
    options: tuple[int, ...]
    other: Any = 0.0
    dim: int | None = None
    is_members: bool = False
    is_single: bool = False

    def forced(self, option: int) -> Any:
        """The result with this choice everywhere."""
        if self.name in _LEAVING:
            return self._left(option)
        if self.is_members:
            return self._member(option)
        if self.dim is not None:
            return self._index(option)
        result = self.result
        if result.dtype != torch.bool or option < 2:
            return torch.full_like(result, option)
        only = torch.zeros_like(result)
        only[:, option - 2] = True
        return only

    def slack(self, option: int) -> Tensor | None:
        """By how much each image is on the side of this choice; None where that is unknown."""
        if self.dim is not None and not self.is_members and self.name in _INDEX:
            scores = (_INDEX[self.name] * self.own).movedim(self.dim, -1)
            chosen = self._subset(option)
            others = [i for i in range(scores.shape[-1]) if i not in chosen]
            return scores[..., chosen].amin(dim=-1) - scores[..., others].amax(dim=-1)
        if option < 2 and self.name in _RISING | _FALLING:
            sign = (1.0 if self.name in _RISING else -1.0) * (2 * option - 1)
            difference: Tensor = (self.own - self.other) * sign
            return difference
        if self.name in ("sign", "sgn", "heaviside"):
            return self.own * (1.0 if option > 0 else -1.0)
        if self.name == "round":
            return 0.5 - (self.own - option).abs()
        return None

    def _left(self, option: int) -> Any:
        far = (2 * option - 1) * _FAR * self.own.abs().clamp_min(1.0)
        if self.name in ("item", "__float__"):
            return float(far)
        return far.tolist() if self.name == "tolist" else far.numpy()

    def _index(self, option: int) -> Any:
        assert self.dim is not None
        if self.name in ("argmax", "argmin"):
            return torch.full_like(self.result, option)
        if self.name in ("max", "min"):
            values, indices = self.result
            picked = self.own.select(self.dim, option).reshape(values.shape)
            return type(self.result)((picked, torch.full_like(indices, option)))
        return self._ordered(option)

    def _subset(self, option: int) -> list[int]:
        """The indices that are chosen: `topk` chooses several."""
        if self.name != "topk":
            return [option]
        assert self.dim is not None
        count, k = self.own.shape[self.dim], self.result[1].shape[self.dim]
        return list(list(combinations(range(count), k))[option])

    def _ordered(self, option: int) -> Any:
        """`topk`, `sort` and `argsort`, with these choices at the end that the model prefers."""
        own, dim = self.own, self.dim
        assert dim is not None
        chosen = torch.zeros(own.shape[dim], device=own.device)
        chosen[self._subset(option)] = 1.0
        shape = [-1 if i == dim else 1 for i in range(own.ndim)]
        natural = own.detach().argsort(dim=dim, descending=True)
        first = chosen.reshape(shape).expand_as(own).gather(dim, natural)
        order = natural.gather(dim, first.argsort(dim=dim, descending=True, stable=True))
        if self.name != "topk" and not self._is_descending():
            order = order.flip(dim)
        if self.name == "argsort":
            return order
        order = order.narrow(dim, 0, self.result[1].shape[dim])
        return type(self.result)((own.gather(dim, order), order))

    def _is_descending(self) -> bool:
        return bool(self.other)

    def _member(self, option: int) -> Any:
        if self.name in ("maximum", "minimum") or self.dim is None:
            both = (self.own, self.other)
            return both[option].expand_as(self.result)
        values = self.result if isinstance(self.result, Tensor) else self.result[0]
        member = self.own.select(self.dim, option)
        if member.ndim < values.ndim:
            member = member.unsqueeze(self.dim)
        member = member.expand_as(values)
        if isinstance(self.result, Tensor):
            return member
        return type(self.result)((member, torch.full_like(self.result[1], option)))


def _gate(
    name: str,
    own: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
    rows: int,
    classes: int,
) -> _Operation | None:
    """The operation, if it is a gate."""
    other = args[1] if len(args) > 1 else kwargs.get("other", 0.0)
    if name in ("maximum", "minimum") or (name in ("max", "min") and isinstance(other, Tensor)):
        if _is_logits(result, rows, classes) and isinstance(other, Tensor):
            return _Operation(name, own, result, (0, 1), other, is_members=True)
        return None
    if name in _INDEX or name in _SORTING or name in _MIDDLE or name in ("amax", "amin"):
        return _choosing(name, own, args, kwargs, result, rows, classes)
    if name in _LEAVING:
        if not own.is_floating_point() or not _is_score(own, rows, 1):
            return None
        return _Operation(name, own, result, (0, 1), is_single=own.numel() == 1)
    if not isinstance(result, Tensor) or not _is_score(result, rows, _FEW):
        return None
    is_single = result.numel() == 1
    if name in _RISING | _FALLING | _EQUAL:
        options = tuple(range(2 + _columns(result, rows)))
        return _Operation(name, own, result, options, other, is_single=is_single)
    options = _values_of(name, own, args, kwargs, result, rows)
    if not options:
        return None
    return _Operation(name, own, result, options, is_single=is_single)


def _values_of(
    name: str, own: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor, rows: int
) -> tuple[int, ...]:
    """The values that rounding, a cast or a lookup of one score gives."""
    if not _is_score(result, rows, 1):
        return ()
    if name in ("sign", "sgn"):
        return (-1, 1)
    if name in ("bucketize", "searchsorted"):
        edges = kwargs.get("boundaries", args[1] if name == "bucketize" else own)
        return tuple(range(edges.numel() + 1)) if edges.numel() < _FEW else ()
    is_cast = name in CASTING and own.is_floating_point() and not result.is_floating_point()
    if name not in ROUNDING and not is_cast:
        return ()
    met = {0, 1, *(int(value) for value in result.detach().unique().tolist()[:_FEW])}
    return tuple(sorted(met))


def _columns(result: Tensor, rows: int) -> int:
    """How many comparisons there are for each image; 0 where there is one."""
    if result.ndim != 2 or result.shape[0] != rows or result.shape[1] == 1:
        return 0
    return int(result.shape[1])


def _choosing(
    name: str,
    own: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
    rows: int,
    classes: int,
) -> _Operation | None:
    """A choice along a dimension: of an index for each image, or of one of several logits."""
    skipped = name in ("topk", "kthvalue", "quantile", "nanquantile")
    given = args[2 if skipped else 1] if len(args) > (2 if skipped else 1) else None
    dim = kwargs.get("dim", kwargs.get("axis", given))
    if dim is None and (name in _SORTING or name == "topk"):
        dim = 0 if name == "msort" else -1
    if not isinstance(dim, int) or isinstance(dim, bool) or own.ndim < 1:
        return None
    dim, count = dim % own.ndim, own.shape[dim]
    first = result if isinstance(result, Tensor) else result[0]
    if not 2 <= count <= MOST_CHOICES:
        return None
    options = tuple(range(count))
    if name == "topk" and first.shape[dim] == count:
        return None
    if _is_members(own, dim, rows, classes):
        return _Operation(name, own, result, options, dim=dim, is_members=True)
    if name == "topk":
        options = tuple(range(comb(count, first.shape[dim])))
        if len(options) > MOST_CHOICES:
            return None
    descending = kwargs.get("descending", name in _SORTING and len(args) > 2 and args[2])
    size = count if name in ("topk", *_SORTING) else 1
    if name in (*_INDEX, *_SORTING) and _is_score(first, rows, size) and own.ndim <= 2:
        return _Operation(
            name, own, result, options, descending, dim=dim, is_single=first.numel() <= size
        )
    return None


def _is_members(own: Tensor, dim: int, rows: int, classes: int) -> bool:
    left = [size for i, size in enumerate(own.shape) if i != dim]
    return left == [rows, classes]


def _is_logits(result: Any, rows: int, classes: int) -> bool:
    return isinstance(result, Tensor) and tuple(result.shape) == (rows, classes)


def _is_score(result: Tensor, rows: int, most: int) -> bool:
    """Whether there is one value for all images, or at most so many for each."""
    count = result.numel()
    return count == 1 or (0 < count <= rows * most and count % rows == 0)
