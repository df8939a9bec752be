"""The truth for attribution: sample numbers carried through an attack's own tensor operations.

Every tensor that descends from the clean batch has a *shadow* of the same shape whose values are
sample numbers. Operations that move values around are applied to the shadows as well; operations
that compute new values row by row pass the numbers of their rows on. What goes through NumPy loses
its shadow: there the truth is unknown, and a test must not count it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

UNKNOWN = -1.0

MOVES = {
    "__getitem__", "cat", "concat", "stack", "repeat", "expand", "expand_as", "unsqueeze",
    "squeeze", "view", "reshape", "flatten", "permute", "transpose", "index_select", "tile",
    "broadcast_to", "repeat_interleave", "masked_select", "flip", "roll", "chunk", "split",
    "unbind", "view_as", "swapaxes", "movedim", "gather", "where",
}  # fmt: skip


class SampleIds(TorchFunctionMode):
    """Active while an attack runs; `of(rows)` says which sample each row descends from."""

    def __init__(self, images: Tensor):
        super().__init__()
        self._shadows = WeakIdKeyDictionary()
        self.follow(images)

    def follow(self, images: Tensor) -> None:
        """Give a batch its numbers."""
        numbers = torch.arange(len(images), dtype=torch.float64)
        shape = (-1, *([1] * (images.ndim - 1)))
        self._shadows[images] = numbers.view(shape).expand(images.shape).clone()

    def of(self, rows: Tensor) -> Tensor:
        """`(m,)` sample numbers; -1 where unknown or mixed."""
        shadow = self._shadows.get(rows)
        if shadow is None or shadow.shape != rows.shape:
            return torch.full((len(rows),), -1)
        flat = shadow.flatten(1)
        same = (flat == flat[:, :1]).all(dim=1)
        return torch.where(same, flat[:, 0], UNKNOWN).long()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__setitem__":
            return self._set_item(func, args)
        result = func(*args, **kwargs)
        if name in MOVES and self._moved(func, args, kwargs, result):
            return result
        for tensor in _tensors(result):
            self._pass_on(tensor, args, kwargs)
        return result

    def _set_item(self, func: Any, args: tuple[Any, ...]) -> Any:
        target, index, value = args
        result = func(*args)
        theirs = self._shadows.get(value) if isinstance(value, Tensor) else None
        mine = self._shadows.get(target)
        if theirs is None and mine is None:
            return result
        if mine is None:
            mine = torch.full(target.shape, UNKNOWN, dtype=torch.float64)
        if theirs is not None:  # a value without numbers perturbs the row that it lands in
            mine[index] = theirs
        self._shadows[target] = mine
        return result

    def _moved(self, func: Any, args: Any, kwargs: Any, result: Any) -> bool:
        inputs = [t for t in _tensors((args, kwargs)) if t.is_floating_point()]
        if not any(t in self._shadows for t in inputs):
            return False
        try:
            moved = func(*self._as_shadows(args), **self._as_shadows(kwargs))
        except (RuntimeError, TypeError, IndexError):
            return False
        pairs = list(zip(_tensors(result), _tensors(moved), strict=True))
        if any(t.shape != s.shape for t, s in pairs):
            return False
        for tensor, shadow in pairs:
            self._shadows[tensor] = shadow.clone()
        return True

    def _as_shadows(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value in self._shadows:
                return self._shadows[value]
            if value.is_floating_point():
                return torch.full(value.shape, UNKNOWN, dtype=torch.float64)
            return value
        if isinstance(value, (list, tuple)):
            items = [self._as_shadows(v) for v in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, dict):
            return {k: self._as_shadows(v) for k, v in value.items()}
        return value

    def _pass_on(self, result: Tensor, args: Any, kwargs: Any) -> None:
        if not result.is_floating_point() or result.ndim < 2:
            return
        found = None
        for tensor in _tensors((args, kwargs)):
            shadow = self._shadows.get(tensor)
            if shadow is None:
                continue
            rows = self._rows(shadow, result)
            if rows is not None:
                found = rows if found is None else torch.maximum(found, rows)
        if found is not None:
            self._shadows[result] = found

    @staticmethod
    def _rows(shadow: Tensor, result: Tensor) -> Tensor | None:
        """The numbers of the rows, spread over a result with the same rows."""
        if shadow.shape == result.shape:
            return shadow.clone()
        try:
            return shadow.expand(result.shape).clone()
        except RuntimeError:
            pass
        if shadow.ndim < 2 or shadow.shape[0] != result.shape[0]:
            return None
        flat = shadow.flatten(1)
        if flat.shape[1] == 0 or not bool((flat == flat[:, :1]).all()):
            return None
        return flat[:, 0].view(-1, *([1] * (result.ndim - 1))).expand(result.shape).clone()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []
