"""Straight-through stages inside an unmodified model, intercepted where they happen.

A `TorchFunctionMode` sees every operation of the model's forward pass. The values stay exactly
what they are; only the gradient's path is repaired:

- *cutting* operations (`round`, `floor`, `sign`, comparisons, `argmax`, casts to integers,
  `bucketize`, ranks, `topk`, lookups in a table, `detach`, `.data`, `torch.no_grad`, hooks on
  tensors) pass the gradient as if they were the identity (Bengio et al. 2013; Athalye et al. 2018).
  Their results may be booleans or integers, which hold no gradient: these get a *shadow*, a
  differentiable tensor that goes through the same operations until the values are floats again;
- *saturating* operations (`tanh`, `sigmoid`, `softmax`, `clamp` and its kin) get the slope of a
  function that rises alike but never becomes flat.

A trip through NumPy or PIL leaves torch altogether; `repairs.fit_front` repairs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Group = Literal["cutting", "saturating"]

ROUNDING = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside"}
COMPARING = {"gt": 1, "ge": 1, "greater": 1, "lt": -1, "le": -1, "less": -1, "greater_equal": 1,
             "less_equal": -1, "__gt__": 1, "__ge__": 1, "__lt__": -1, "__le__": -1}  # fmt: skip
CASTING = {"byte", "char", "short", "int", "long", "bool", "to", "type", "type_as"}
_SQUASHING = {"tanh", "sigmoid", "softsign", "erf", "atan", "hardsigmoid", "logsigmoid"}
_CLAMPING = {"clamp", "clip", "hardtanh", "relu6", "clamp_min", "clamp_max", "threshold"}
LEAVING = {"numpy", "__array__", "item", "tolist"}
"""Operations whose results are no tensors."""


class StraightThrough(TorchFunctionMode):
    """Intercepts the operations of these groups.

    Args:
        groups: which operations get a straight-through gradient.
        sharp: whether comparisons pass it only near the boundary. Where only a few values are on
            the other side, as in a sparse layer, the gradient of the others is then their own.

    Attributes:
        seen: how often each of them occurs on the gradient's path.
    """

    def __init__(self, groups: set[Group], sharp: bool = False):
        super().__init__()
        self._step = _sharp_step if sharp else _soft_step
        self._cutting, self._saturating = "cutting" in groups, "saturating" in groups
        self.seen: Counter[str] = Counter()
        self._shadows: dict[int, _Shadowed] = {}
        self._orders: dict[int, _Shadowed] = {}
        self._squashed: tuple[Tensor, Tensor] | None = None

    def unsquashed(self, output: Tensor) -> Tensor | None:
        """What went into the last saturating operation, where its result is the model's output.

        The output may be the result times a positive factor plus a constant. Then the values before
        it, `(n, k)`, decide alike, and tell classes apart that saturation has made equal.
        """
        if self._squashed is None or self._squashed[0].shape != output.shape:
            return None
        result, before = self._squashed
        return before if _is_multiple(output.detach(), result.detach()) else None

    def __exit__(self, *error: Any) -> None:
        """Drop the shadows: the forward pass is over."""
        self._shadows.clear()
        self._orders.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """One operation of the model."""
        return self._operation(func, args, kwargs or {})

    def _operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_of(func)
        own = args[0] if args and isinstance(args[0], Tensor) else None
        if name in LEAVING and own is not None:
            # A repaired detach() leaves a gradient, which NumPy refuses.
            self.seen["numpy"] += own.requires_grad and own.ndim > 0 and self._cutting
            return func(own.detach(), *args[1:], **kwargs)
        if self._cutting:
            if name == "register_hook" and own is not None:
                self.seen["hook"] += 1
                return func(own.detach().requires_grad_(True), *args[1:], **kwargs)
            if name in ("_set_grad_enabled", "set_grad_enabled"):
                self.seen["no_grad"] += not args[0]
                return None if not args[0] else func(*args, **kwargs)
            repaired = self._cut(name, func, own, args, kwargs)
            if repaired is not None:
                return repaired
        if self._saturating and own is not None and own.requires_grad:
            repaired = self._saturated(name, func, own, args, kwargs)
            if repaired is not None:
                return repaired
        return func(*args, **kwargs)

    def _cut(
        self, name: str, func: Any, own: Tensor | None, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if self._has_shadow(args) or self._has_shadow(tuple(kwargs.values())):
            return self._follow(name, func, args, kwargs)
        if name in ("bucketize", "searchsorted"):
            return self._looked_up(name, func, args, kwargs)
        if name in _ORDERING or any(id(arg) in self._orders for arg in args):
            return self._ranked(name, func, args, kwargs)
        if own is None or not own.requires_grad:
            return None
        if name in ("detach", "data", "detach_"):
            self.seen["detach"] += 1
            return own
        if name.endswith("_") and name[:-1] in ROUNDING:
            self.seen[name[:-1]] += 1
            before = own.clone()
            after = func(own.detach().clone(), *args[1:], **kwargs)
            return own.copy_(straight(after, before))
        if name in ROUNDING:
            self.seen[name] += 1
            return straight(func(*args, **kwargs), own)
        if name in ("__floordiv__", "floor_divide") or kwargs.get("rounding_mode"):
            self.seen["floor"] += 1
            return straight(func(*args, **kwargs), own / args[1])
        if name in COMPARING:
            self.seen["comparison"] += 1
            other = args[1] if len(args) > 1 else kwargs.get("other", 0.0)
            return self._shadowed(
                func(*args, **kwargs), self._step((own - other) * COMPARING[name])
            )
        if name in ("argmax", "argmin"):
            return self._chosen(name, func, own, args, kwargs)
        if name == "topk":
            return self._nearest(func, own, args, kwargs)
        if name in CASTING:
            result = func(*args, **kwargs)
            if not result.is_floating_point():
                self.seen["cast"] += 1
                return self._shadowed(result, own.clone())
            return result
        return None

    def _chosen(self, name: str, func: Any, own: Tensor, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The chosen index gets the soft choice as its shadow, which `one_hot` uses."""
        result = func(*args, **kwargs)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if dim is None:
            return result
        self.seen[name] += 1
        sign = 1.0 if name == "argmax" else -1.0
        scale = own.detach().std().clamp_min(1e-12)
        self._shadows[id(result)] = _Shadowed(result, (sign * own / scale).softmax(dim), True)
        return result

    def _nearest(self, func: Any, own: Tensor, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The chosen indices get a soft choice as their shadow, about as wide as they are."""
        result = func(*args, **kwargs)
        dim = kwargs.get("dim", args[2] if len(args) > 2 else -1)
        if dim not in (-1, own.ndim - 1):
            return result
        self.seen["topk"] += 1
        largest = kwargs.get("largest", args[3] if len(args) > 3 else True)
        scores = own if largest else -own
        values = scores.detach().gather(-1, result.indices)
        width = (values.amax(-1) - values.amin(-1)).mean().clamp_min(1e-12)
        self._shadows[id(result.indices)] = _Shadowed(
            result.indices, (scores / width).softmax(-1), True
        )
        return result

    def _ranked(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A rank follows the value that it ranks; an order alone follows nothing."""
        result = func(*args, **kwargs)
        known = next((self._orders[id(arg)] for arg in args if id(arg) in self._orders), None)
        if known is None and isinstance(args[0], Tensor) and args[0].requires_grad:
            order = result if isinstance(result, Tensor) else result[1]
            self._orders[id(order)] = _Shadowed(order, args[0], False)
        is_rank = name in ("argsort", "scatter", "scatter_") and isinstance(result, Tensor)
        if known is None or not is_rank or result.shape != known.shadow.shape:
            return result
        self.seen["rank"] += 1
        if result.is_floating_point():
            return straight(result, _fitted(known.shadow, result))
        return self._shadowed(result, _fitted(known.shadow, result))

    def _looked_up(self, name: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """A bucket's number rises with the value: it follows the value, by the slope that fits."""
        values = kwargs.get("input", args[0 if name == "bucketize" else 1])
        if not isinstance(values, Tensor) or not values.requires_grad:
            return None
        self.seen[name] += 1
        result = func(*args, **kwargs)
        return self._shadowed(result, _fitted(values, result))

    def _saturated(
        self, name: str, func: Any, own: Tensor, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if name in _SQUASHING:
            rising = own / (1.0 + own.abs())
        elif name in _CLAMPING or name == "softmax":
            rising = own
        else:
            return None
        self.seen[name] += 1
        result = straight(func(*args, **kwargs), rising)
        if own.ndim == 2:
            self._squashed = result, own
        return result

    def _follow(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation on booleans or integers that have shadows."""
        result = func(*args, **kwargs)
        if (same := self._still_chosen(name, args, result)) is not None:
            return same
        if not isinstance(result, Tensor):
            return result
        try:
            shadow = self._shadow_of(name, func, args, kwargs)
        except (RuntimeError, TypeError, IndexError):
            return result  # an operation that the shadow does not support stays cut
        if shadow is not None and shadow.ndim == result.ndim - 1:
            shadow = shadow.unsqueeze(-2).expand(result.shape)  # one choice for several places
        if shadow is None or shadow.shape != result.shape or not shadow.requires_grad:
            return result
        if result.is_floating_point():
            return straight(result, shadow)
        return self._shadowed(result, shadow)

    def _still_chosen(self, name: str, args: tuple[Any, ...], result: Any) -> Any | None:
        """Some of the chosen indices, or the classes that a table has for them: a choice as well.

        The majority of chosen classes (`mode`) is one, too.
        """
        own = self._shadows.get(id(args[0])) if args and isinstance(args[0], Tensor) else None
        if own is not None and own.is_choice and name in ("__getitem__", "mode"):
            chosen = result if isinstance(result, Tensor) else result.values
            self._shadows[id(chosen)] = _Shadowed(chosen, own.shadow, True)
            return result
        index = self._choice_in(args)
        if index is None or name not in _TAKING or not isinstance(result, Tensor):
            return None
        if result.is_floating_point() or args[0].ndim != 1:
            return None
        classes = torch.nn.functional.one_hot(args[0].long()).to(index.shadow.dtype)
        self._shadows[id(result)] = _Shadowed(result, index.shadow @ classes, True)
        return result

    def _choice_in(self, args: tuple[Any, ...]) -> _Shadowed | None:
        """The choice that an operation takes entries by."""
        index = args[-1] if len(args) > 1 else None
        index = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        found = self._shadows.get(id(index)) if isinstance(index, Tensor) else None
        return found if found is not None and found.is_choice else None

    def _shadow_of(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        chosen = self._shadows.get(id(args[0])) if args else None
        if chosen is not None and chosen.is_choice:
            return chosen.shadow if name == "one_hot" else None
        if (index := self._choice_in(args)) is not None and name in _TAKING:
            return _expected(args[0], index, func(*args, **kwargs))
        soft = [self._soft(arg) for arg in args]
        if name in _TAKING:
            return self._entry(name, args, func(*args, **kwargs))
        if name in _LOGICAL:
            logical: Tensor = _LOGICAL[name](*soft)
            return logical
        if kwargs.get("rounding_mode"):
            quotient: Tensor = soft[0] / soft[1]
            return quotient
        if name == "where" and len(soft) == 3:
            mixed: Tensor = soft[0] * soft[1] + (1.0 - soft[0]) * soft[2]
            return mixed
        if name in ("masked_fill", "masked_fill_"):
            filled: Tensor = soft[0] * (1.0 - soft[1]) + soft[1] * soft[2]
            return filled
        if name in CASTING:
            same: Tensor = soft[0]
            return same
        result = self._operation(
            func, tuple(soft), {key: self._soft(value) for key, value in kwargs.items()}
        )
        return result if isinstance(result, Tensor) else None

    def _entry(self, name: str, args: tuple[Any, ...], result: Tensor) -> Tensor | None:
        """A table's entry at an index that has a shadow: it follows the index by a fitted slope."""
        index = args[1] if name in ("__getitem__", "take", "index_select") else args[-1]
        index = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        shadow = self._soft(index)
        if name == "embedding":
            shadow = self._soft(args[0] if id(args[0]) in self._shadows else args[1])
        if not isinstance(shadow, Tensor):
            return None
        while shadow.ndim < result.ndim:
            shadow = shadow.unsqueeze(-1)
        return _fitted(shadow.expand(result.shape), result)

    def _soft(self, value: Any) -> Any:
        if isinstance(value, Tensor) and id(value) in self._shadows:
            return self._shadows[id(value)].shadow
        if isinstance(value, (list, tuple)):
            return type(value)(self._soft(item) for item in value)
        return value

    def _has_shadow(self, values: tuple[Any, ...]) -> bool:
        return any(
            self._has_shadow(tuple(value)) if isinstance(value, (list, tuple))
            else isinstance(value, Tensor) and id(value) in self._shadows
            for value in values
        )  # fmt: skip

    def _shadowed(self, result: Tensor, shadow: Tensor) -> Tensor:
        self._shadows[id(result)] = _Shadowed(result, shadow, False)
        return result


class _Shadowed:
    """A tensor, held so that its id stays its own, and what is differentiated in its place."""

    def __init__(self, tensor: Tensor, shadow: Tensor, is_choice: bool):
        self.tensor, self.shadow, self.is_choice = tensor, shadow, is_choice


_ORDERING = {"argsort", "sort"}
_TAKING = {"__getitem__", "take", "index_select", "embedding"}

_SHARPNESS = 30.0
"""Of three sparse networks, 25 and 50 led 5 to 7 points further than a soft step, and 5 did not."""

_LOGICAL: dict[str, Callable[..., Any]] = {
    "__and__": lambda a, b: a * b, "logical_and": lambda a, b: a * b,
    "bitwise_and": lambda a, b: a * b,
    "__or__": lambda a, b: a + b - a * b, "logical_or": lambda a, b: a + b - a * b,
    "bitwise_or": lambda a, b: a + b - a * b,
    "__invert__": lambda a: 1.0 - a, "logical_not": lambda a: 1.0 - a,
    "bitwise_not": lambda a: 1.0 - a,
}  # fmt: skip


def straight(value: Tensor, path: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another."""
    if value.shape != path.shape:
        return value
    result: Tensor = _Straight.apply(value.detach(), path)  # type: ignore[no-untyped-call]
    return result


class _Straight(torch.autograd.Function):
    """x + (f(x) - x).detach() rounds; this keeps every bit."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, path: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def _expected(table: Tensor, index: _Shadowed, result: Tensor) -> Tensor | None:
    """The mean entry under a soft choice."""
    if not table.is_floating_point() or len(table) != index.shadow.shape[-1]:
        return None
    mean: Tensor = (index.shadow @ table.flatten(1)).view(
        *index.shadow.shape[:-1], *table.shape[1:]
    )
    return mean.expand(result.shape) if mean.ndim == result.ndim else mean


def _fitted(path: Tensor, values: Tensor) -> Tensor:
    """The path times the slope with which the values follow it."""
    x, y = path.detach().double(), values.detach().double()
    x, y = x - x.mean(), y - y.mean()
    slope = (x * y).sum() / x.square().sum().clamp_min(1e-30)
    return path * slope.to(path.dtype)


def _soft_step(x: Tensor) -> Tensor:
    """0 to 1, steepest at 0, never flat: its slope falls with the square of the distance."""
    width = x.detach().abs().mean().clamp_min(1e-12)
    return 0.5 * (1.0 + x / (width + x.abs()))


def _sharp_step(x: Tensor) -> Tensor:
    """0 to 1, within a few hundredths of the values' spread."""
    return torch.sigmoid(_SHARPNESS * x / x.detach().std().clamp_min(1e-12))


def name_of(func: Any) -> str:
    """An operation's name; of a property's getter, the property's."""
    name = getattr(func, "__name__", "")
    if name == "__get__":  # the getter of a property such as .data
        name = getattr(getattr(func, "__self__", None), "__name__", "")
    return str(name)


def _is_multiple(output: Tensor, result: Tensor) -> bool:
    """Whether the output is the result times one positive factor plus one constant."""
    z, h = output.double() - output.double().mean(), result.double() - result.double().mean()
    power = float((h * h).sum())
    if not power > 0.0:
        return False
    factor = float((z * h).sum()) / power
    return factor > 0.0 and float((z - factor * h).abs().max()) <= 1e-4 * float(z.abs().max())
