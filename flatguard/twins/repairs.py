"""Twins of a target whose gradient is repaired, each at another stage.

- `saturating`: tanh, sigmoid, softmax, clamp inside the model (`straight_through.py`);
- `cutting`: round, sign, comparisons, casts, detach, no_grad inside the model (the same);
- `sharp`: the same as `cutting`, where comparisons pass a gradient only near their boundary;
- `function`: the backward pass of every custom `autograd.Function`: the identity instead;
- `front`: everything before the first layer with weights, NumPy and PIL included: an affine
  function of the image instead, fitted to that layer's input;
- `head`: everything behind the final linear layers: their own outputs are differentiated;
- `all` of them together;
- `logarithm`: of a model that returns probabilities (`logarithm.py`).

Values, and so decisions, are the target's own. Only what is differentiated differs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatguard.errors import ran_out_of_memory
from flatguard.twins.logarithm import LogarithmTwin, are_probabilities
from flatguard.twins.outputs import Outputs, Twin
from flatguard.twins.straight_through import Group, StraightThrough, straight

T = TypeVar("T")

FITTED_ON, PASSES, DRAWS = 16, 7, 16

IN_WORDS = {
    "saturating": "tanh, sigmoid, softmax and clamp",
    "cutting": "rounding, comparisons, detach() and other steps that cut the gradient",
    "sharp": "comparisons",
    "function": "the model's own autograd functions",
    "logarithm": "the logarithm of probabilities",
    "front": "the preprocessing",
    "head": "what follows the last linear layers",
    "all": "all steps that hinder the gradient",
}
"""What is repaired in each repaired twin."""

_EXPLAINED = 0.5
"""A front is repaired where an affine function explains this share of its output's variance."""

_EXACT = 1e-6

_AGREEING = 0.9
"""Heads replace the model's output where they decide as it does on this share of the images."""


@dataclass
class Repair:
    """A repaired twin, and the operations that it repairs.

    Attributes:
        name: of the table above.
        twin: the twin.
        met: the repaired operations, with how often they occur.
    """

    name: str
    twin: Twin
    met: dict[str, int] = field(default_factory=dict)


def repairs(model: nn.Module, images: Tensor) -> list[Repair]:
    """The repairs that apply to this model.

    Args:
        model: in eval mode.
        images: a few clean images, on which fronts are fitted and heads are compared.

    Cost: `PASSES` forward passes and two backward passes over at most `FITTED_ON` images;
        `DRAWS` forward passes more for a randomised model.
    """
    images = images[:FITTED_ON]
    found = [
        _if_possible(lambda: _operations(model, images, "saturating")),
        _if_possible(lambda: _operations(model, images, "cutting")),
        _if_possible(lambda: _sharpened(model, images)),
        *(_if_possible(lambda: _of_the_output(model, images)) or ()),
    ]
    front = _if_possible(lambda: fit_front(model, images))
    heads = _if_possible(lambda: _find_heads(model, images))
    if front is not None:
        with_front = RepairedTwin(model, front=front, groups={"cutting"}, functions=True)
        found.append(Repair("front", with_front, {"front": 1}))
    if heads:
        found.append(Repair("head", RepairedTwin(model, heads=heads), {"head": len(heads)}))
    useful = [repair for repair in found if repair is not None and repair.met]
    if len({repair.name for repair in useful} - {"sharp", "logarithm"}) > 1:
        everything = RepairedTwin(
            model, front=front, heads=heads, groups={"cutting", "saturating"}, functions=True
        )
        stages = [repair for repair in useful if repair.name != "logarithm"]
        met = {name: count for repair in stages for name, count in repair.met.items()}
        useful.append(Repair("all", everything, met))
    return useful


def _if_possible(repair: Callable[[], T]) -> T | None:
    """None where a user's model fails under a repair. The other repairs go on."""
    try:
        return repair()
    except Exception as error:
        if ran_out_of_memory(error):
            raise  # whether the repair applies is still unknown
        return None


def _operations(model: nn.Module, images: Tensor, group: Group) -> Repair:
    twin = RepairedTwin(model, groups={group})
    twin(images.detach().clone().requires_grad_(True))
    return Repair(group, twin, {name: count for name, count in twin.seen.items() if count})


def _sharpened(model: nn.Module, images: Tensor) -> Repair:
    """Only comparisons differ: without one there is nothing to repair."""
    twin = RepairedTwin(model, groups={"cutting"}, sharp=True)
    twin(images.detach().clone().requires_grad_(True))
    seen = twin.seen.get("comparison", 0)
    return Repair("sharp", twin, {"comparison": seen} if seen else {})


def _of_the_output(model: nn.Module, images: Tensor) -> tuple[Repair, Repair]:
    """Custom functions in the graph of the output, and the logarithm of probabilities."""
    with torch.enable_grad():
        logits = model(images.detach().clone().requires_grad_(True))
    met = {type(node).__name__.removesuffix("Backward"): 1 for node in _custom_functions(logits)}
    probabilities = {"probabilities": 1} if are_probabilities(logits) else {}
    return (
        Repair("function", RepairedTwin(model, functions=True), met),
        Repair("logarithm", LogarithmTwin(model), probabilities),
    )


class RepairedTwin:
    """A twin with any of the repairs.

    Args:
        model: the target; it is hooked only while it is called.
        groups: operations to repair.
        sharp: whether comparisons pass a gradient only near their boundary.
        functions: whether to repair custom functions.
        front: replaces what is before the first layer with weights.
        heads: layers whose outputs replace the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        groups: set[Group] | None = None,
        sharp: bool = False,
        functions: bool = False,
        front: _Front | None = None,
        heads: list[nn.Linear] | None = None,
    ):
        self._model, self._groups, self._sharp = model, groups, sharp
        self._functions, self._front, self._heads = functions, front, heads
        self.seen: dict[str, int] = {}

    def __call__(self, images: Tensor) -> Outputs:
        """The target's logits, with the repaired gradient."""
        outputs: list[Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad() if images.requires_grad else torch.no_grad())
            if self._front is not None:
                stack.enter_context(self._front.replaced(images))
            if self._heads:
                stack.enter_context(_outputs_collected(self._heads, outputs))
            mode = StraightThrough(self._groups, self._sharp) if self._groups else None
            if mode is not None and images.requires_grad:
                stack.enter_context(mode)
            logits = self._model(images)
        if mode is not None:
            self.seen = dict(mode.seen)
        if self._functions and logits.requires_grad:
            _repair_functions(logits)
        if outputs:
            return Outputs(logits, _mean_of_heads(outputs), scale_free=True)
        before = None if mode is None else mode.unsquashed(logits)
        if before is not None:
            return Outputs(logits, _mean_of_heads([before]), scale_free=True)
        return Outputs(logits, logits)


def _custom_functions(output: Tensor) -> list[Any]:
    """The nodes of a graph whose backward pass is a custom one, written in Python."""
    found: list[Any] = []
    left, known = [output.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found.append(node)
        left += [following for following, _ in node.next_functions]
    return [node for node in found if not type(node).__name__.startswith("_Straight")]


def _repair_functions(output: Tensor) -> None:
    """Make each custom function pass on the gradient that it gets, where the shapes allow it."""
    for node in _custom_functions(output):
        node.register_hook(_identity)


def _identity(passed_on: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[Any, ...]:
    gradient = given[0]
    return tuple(
        gradient
        if isinstance(gradient, Tensor) and (old is None or old.shape == gradient.shape) and i == 0
        else old
        for i, old in enumerate(passed_on)
    )


@dataclass
class _Front:
    """Everything before a model's first layer with weights, as an affine function.

    Attributes:
        layer: that layer.
        slope, offset: `(1, channels, 1, 1)`.
        size: the height and width of the layer's input.
    """

    layer: nn.Module
    slope: Tensor
    offset: Tensor
    size: tuple[int, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """The fitted function."""
        return self.slope * _resized(images, self.size) + self.offset

    @contextmanager
    def replaced(self, images: Tensor) -> Iterator[None]:
        """Give the first layer's input this gradient while the model is called on these images."""
        left = [True]

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            given = inputs[0]
            path = self(images)
            if not left[0] or given.numel() != path.numel():
                return None  # layers may be used again, on something else
            left[0] = False
            return (straight(given, path.reshape(given.shape)), *inputs[1:])

        handle = self.layer.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def fit_front(model: nn.Module, images: Tensor) -> _Front | None:
    """Fit an affine function for each channel; None where it explains too little of the input."""
    first = _first_input(model, images)
    if first is None:
        return None
    given = first.given
    if given.ndim == 2 and given.shape[1] == images[0].numel():
        given = given.view_as(images)  # a fully connected layer gets the image as one row
    if given.ndim != 4 or given.shape[:2] != images.shape[:2]:
        return None
    size = tuple(given.shape[2:])
    x, y = _resized(images, size).double(), given.detach().double()
    x_mean, y_mean = x.mean((0, 2, 3), keepdim=True), y.mean((0, 2, 3), keepdim=True)
    variance = (x - x_mean).square().mean((0, 2, 3), keepdim=True).clamp_min(1e-12)
    slope = ((x - x_mean) * (y - y_mean)).mean((0, 2, 3), keepdim=True) / variance
    left = (y - y_mean - slope * (x - x_mean)).square().mean()
    total = (y - y_mean).square().mean()
    unexplained = float(left / total.clamp_min(1e-12))
    is_whole = unexplained < _EXACT and _has_slope(given, first.images, slope)
    if unexplained > 1.0 - _EXPLAINED or is_whole:
        return None  # it explains too little, or there is nothing to repair
    offset = (y_mean - slope * x_mean).to(images.dtype)
    return _Front(first.layer, slope.to(images.dtype), offset, size)


@dataclass(frozen=True)
class _FirstInput:
    """The first layer with weights, and its input for some images."""

    layer: nn.Module
    given: Tensor
    images: Tensor


def _first_input(model: nn.Module, images: Tensor) -> _FirstInput | None:
    seen: list[_FirstInput] = []
    x = images.detach().clone().requires_grad_(True)

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not seen and inputs and isinstance(inputs[0], Tensor):
            seen.append(_FirstInput(module, inputs[0], x))

    weighted = [m for m in model.modules() if any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_pre_hook(hook) for module in weighted]
    try:
        with torch.enable_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else None


def _has_slope(given: Tensor, images: Tensor, slope: Tensor) -> bool:
    """Whether autograd gives that slope."""
    if not given.requires_grad:
        return False
    (found,) = torch.autograd.grad(given.sum(), images, allow_unused=True, retain_graph=True)
    if found is None:
        return False
    expected = slope.sum() * given[0, 0].numel() / images[0, 0].numel()
    return bool(torch.isclose(found.double().mean() * images.shape[1], expected, rtol=1e-2))


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _find_heads(model: nn.Module, images: Tensor) -> list[nn.Linear]:
    """The linear layers with an output for each class that together decide as the model does.

    None of them where the model's output is theirs already: there is nothing to repair. Where the
    same images get other logits, the mean of `DRAWS` calls decides.
    """
    outputs: list[Tensor] = []
    with torch.no_grad():
        first = model(images)
        classes = first.shape[1]
        layers = [
            module for module in model.modules()
            if isinstance(module, nn.Linear) and module.out_features == classes
        ]  # fmt: skip
        with _outputs_collected(layers, outputs):
            logits = model(images)
        if not outputs or any(output.shape != logits.shape for output in outputs):
            return []
        if any(torch.equal(output, logits) for output in outputs):
            return []
        if not torch.equal(first, logits):
            logits = torch.stack([model(images) for _ in range(DRAWS)]).mean(dim=0)
    heads = _mean_of_heads(outputs)
    agree = (heads.argmax(dim=1) == logits.argmax(dim=1)).double().mean()
    return layers if bool(agree >= _AGREEING) else []


@contextmanager
def _outputs_collected(layers: list[nn.Linear], outputs: list[Tensor]) -> Iterator[None]:
    """Collect the outputs of these layers while the model is called."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        outputs.append(output)

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean_of_heads(outputs: list[Tensor]) -> Tensor:
    """The mean of several heads' logits, each divided by its own spread on each image."""
    scaled = [
        output / output.detach().std(dim=1, keepdim=True).clamp_min(1e-12) for output in outputs
    ]
    return torch.stack(scaled).mean(dim=0)


def double(model: nn.Module, images: Tensor) -> Twin | None:
    """The same model in float64; None where it cannot be copied or takes no float64."""
    try:
        copied = copy.deepcopy(model).double()
        with torch.no_grad():
            logits = copied(images.double())
    except Exception:  # a user's model may raise anything on a type that it does not expect
        return None
    if logits.dtype != torch.float64:
        return None

    def twin(images: Tensor) -> Outputs:
        logits = copied(images.double())
        return Outputs(logits, logits)

    return twin
