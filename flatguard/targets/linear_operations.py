r"""Linear operations of torch, each read as a product of two tensors with named axes.

$\text{out} = \sum_{\text{shared}} \text{left} \cdot \text{right} + \text{bias}$ is what `linear`,
`matmul`, `einsum` and a 1×1 convolution compute. A `Product` has one letter for each axis; a
`Reading` says which operand holds the features φ and which the weights W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_DROPPED = "1"
"""The letter of an axis of size 1 that is broadcast."""

_LETTERS = "abcdefghijklmnop"
_OPERATOR = ".default"


@dataclass(frozen=True)
class Product:
    """One operation that ran; the axes of each tensor have one letter each.

    A letter in both operands and not in `out` is summed over.
    """

    left: Tensor
    right: Tensor
    out: Tensor
    axes: tuple[str, str, str]


@dataclass(frozen=True)
class Reading:
    """A product read as z = W φ.

    Attributes:
        features_on_left: whether the left operand holds the features.
        axes: the letters of the features, of the weights, and of the output.
        sample: the letter of the samples.
        classes: the letter of the classes.
    """

    features_on_left: bool
    axes: tuple[str, str, str]
    sample: str
    classes: str

    def features(self, product: Product) -> Tensor:
        """φ, `(n, d)`: the mean over positions, such as those of a feature map."""
        own, weights, out = self.axes
        tensor = product.left if self.features_on_left else product.right
        positions = _only(own, out, without=weights + self.sample)
        return _arranged(tensor, own, (self.sample, positions, self._inner())).mean(dim=1)

    def weights(self, product: Product) -> Tensor:
        """W, `(n, k, d)` where it has an axis for samples, else `(1, k, d)`.

        It is the mean over axes that only the weights have, such as those of prompts, and over
        the members of an ensemble whose features have the same axis.
        """
        own, weights, out = self.axes
        tensor = product.right if self.features_on_left else product.left
        alone = _only(weights, out, without=own + self.classes)
        sample = self.sample if self.sample in weights else ""
        found = _arranged(tensor, weights, (sample, self.classes, alone, self._inner()))
        members = math.prod(
            tensor.shape[weights.index(letter)] for letter in self._members(weights)
        )
        return found.mean(dim=2) / members

    def output(self, product: Product) -> Tensor:
        """The operation's own result, `(n, k)`, as a mean over its other axes."""
        out = self.axes[2]
        rest = _only(out, out, without=self.sample + self.classes)
        return _arranged(product.out, out, (self.sample, self.classes, rest)).mean(dim=2)

    def _members(self, weights: str) -> str:
        own, _, out = self.axes
        return _only(own, weights, within=out, without=self.sample)

    def _inner(self) -> str:
        own, weights, out = self.axes
        summed = "".join(c for c in own if c in weights and c not in out and c != _DROPPED)
        return self._members(weights) + summed


def readings(product: Product, rows: int, classes: int) -> Iterator[Reading]:
    """Every way to read the product as W φ with `rows` samples and `classes` classes."""
    left, right, out = product.axes
    sizes = dict(zip(out, product.out.shape, strict=True))
    if any(c not in out and not (c in left and c in right) for c in (left + right) if c != "1"):
        return  # a sum over one operand alone
    if not any(c in right and c not in out for c in left if c != _DROPPED):
        return  # nothing is summed over: a product of elements
    for features_on_left in (True, False):
        own, weights = (left, right) if features_on_left else (right, left)
        for sample in out:
            for letter in out:
                fits = sizes[sample] == rows and sizes[letter] == classes and sample != letter
                if fits and sample in own and letter in weights and letter not in own:
                    yield Reading(features_on_left, (own, weights, out), sample, letter)


def _only(one: str, other: str, *, within: str = "", without: str = "") -> str:
    """The letters of both, in the order of the first."""
    return "".join(
        c
        for c in one
        if c in other and c not in without and c != _DROPPED and (not within or c in within)
    )


def _arranged(tensor: Tensor, axes: str, groups: tuple[str, ...]) -> Tensor:
    """The tensor with one axis for each group of letters, in the order of the groups."""
    dropped = [index for index, letter in enumerate(axes) if letter == _DROPPED]
    kept = tensor.squeeze(dropped) if dropped else tensor
    letters = axes.replace(_DROPPED, "")
    order = [letters.index(letter) for letter in "".join(groups)]
    shape = [math.prod(kept.shape[letters.index(letter)] for letter in group) for group in groups]
    return kept.permute(order).reshape(shape)


def product_of(
    function: Callable[..., Any], inputs: tuple[Any, ...], keywords: Mapping[str, Any], out: Any
) -> Product | None:
    """The product that a call of a torch function computed; None if it is no linear operation."""
    rule = _RULES.get(name_of(function))
    if rule is None or not isinstance(out, Tensor) or not out.is_floating_point():
        return None
    try:
        return rule(out, *inputs, **keywords)
    except (TypeError, ValueError, IndexError, AttributeError):
        return None  # a form of the call that no rule knows


def is_linear(function: Callable[..., Any]) -> bool:
    """Whether calls of this torch function are linear operations."""
    return getattr(function, "__name__", None) in _NAMES


def name_of(function: Callable[..., Any]) -> str:
    """The name of a torch function; `mm` for the operator `aten.mm.default`."""
    return str(getattr(function, "__name__", "")).removesuffix(_OPERATOR)


def _matmul(out: Tensor, left: Tensor, right: Tensor) -> Product | None:
    if left.ndim < 2 or right.ndim < 2:
        return None
    batch = _LETTERS[: out.ndim - 2]
    sides = []
    for operand, last in ((left, "xz"), (right, "zy")):
        own = batch[len(batch) - (operand.ndim - 2) :]
        sizes = zip(own, operand.shape[:-2], out.shape[out.ndim - operand.ndim : -2], strict=True)
        sides.append("".join(c if have == want else "1" for c, have, want in sizes) + last)
    return Product(left, right, out, (sides[0], sides[1], batch + "xy"))


def _reversed_matmul(out: Tensor, right: Tensor, left: Tensor) -> Product | None:
    return _matmul(out, left, right)


def _addmm(
    out: Tensor, bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1
) -> Product | None:
    return _matmul(out, left, right if alpha == 1 else right * alpha)


def _linear(
    out: Tensor, given: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Product | None:
    if weight.ndim != 2 or given.ndim < 2:
        return None
    batch = _LETTERS[: given.ndim - 1]
    return Product(given, weight, out, (batch + "z", "yz", batch + "y"))


def _inner(out: Tensor, left: Tensor, right: Tensor) -> Product | None:
    if left.ndim < 2 or right.ndim < 2:
        return None
    one = _LETTERS[: left.ndim - 1]
    two = _LETTERS[left.ndim - 1 : left.ndim + right.ndim - 2]
    return Product(left, right, out, (one + "z", two + "z", one + two))


def _einsum(out: Tensor, equation: str, *operands: Any) -> Product | None:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    given, arrow, result = equation.replace(" ", "").partition("->")
    left, _, right = given.partition(",")
    if not arrow:
        result = "".join(sorted(c for c in {*left, *right} if (left + right).count(c) == 1))
    if "." in equation or any(len(set(axes)) < len(axes) for axes in (left, right)):
        return None
    return Product(operands[0], operands[1], out, (left, right, result))


def _convolution(
    out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any, **more: Any
) -> Product | None:
    if input.ndim != weight.ndim or weight.shape[1] != input.shape[1]:
        return None  # one image without a batch, or several groups
    flat = weight.flatten(1)
    if out.shape[2:] == input.shape[2:] and weight[0, 0].numel() == 1:
        places = _LETTERS[: input.ndim - 2]
        return Product(input, flat, out, ("xz" + places, "yz", "xy" + places))
    if weight.shape[2:] == input.shape[2:] and out[0, 0].numel() == 1:
        return Product(input.flatten(1), flat, out.flatten(1), ("xz", "yz", "xy"))
    return None


_RULES: dict[str, Callable[..., Product | None]] = {
    **dict.fromkeys(("matmul", "__matmul__", "linalg_matmul", "mm", "bmm"), _matmul),
    "__rmatmul__": _reversed_matmul,
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "linear": _linear,
    "inner": _inner,
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
}

_NAMES = {*_RULES, *(name + _OPERATOR for name in _RULES)}


def is_wrapped(out: object) -> bool:
    """Whether a tensor belongs to a transform such as `torch.vmap`, and is gone after it."""
    test = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    return bool(test is not None and isinstance(out, Tensor) and test(out))
