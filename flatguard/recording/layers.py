"""Relative sharpness of the layers before the head, for a few samples along their attack.

These layers have no closed form, so each number is an estimate with a standard error, as in Walter
et al. (2026), Figure 14. The head itself is also estimated, for comparison with its closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn

from flatguard.attacks.monitor import Order
from flatguard.environment.randomness import preserved
from flatguard.errors import UsageError
from flatguard.geometry.trace import layer_sharpness
from flatguard.recording.recorder import Recorder
from flatguard.recording.waypoints import Waypoints
from flatguard.targets.head import FinalMap, LinearLike

METHOD: Literal["hutchinson"] = "hutchinson"
CLOSED_FORM = "closed form"
_MATVECS, _REPEATS = 4, 8
"""32 Hessian-vector products an estimate: 1 s for ResNet-18 on one core."""

PointKind = Literal["clean", "attack", "adversarial"]


@dataclass(frozen=True)
class Layer:
    """A layer and its distance from the head, in layers; the head itself has depth 0."""

    name: str
    depth: int


@dataclass(frozen=True)
class Point:
    """An image of one sample: the clean one, one along the attack, or the attack's result."""

    sample: int
    kind: PointKind
    call: int | None
    image: Tensor
    label: Tensor


@dataclass
class LayerTable:
    """The rows of `layers.parquet`, added one estimate at a time."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self, point: Point, layer: Layer, kappa: float, error: float, method: str = METHOD
    ) -> None:
        """Add one layer at one point; a closed form has no standard error and no products."""
        is_estimate = method == METHOD
        self.rows.append({
            "sample": point.sample,
            "layer": layer.name,
            "depth": layer.depth,
            "point": point.kind,
            "call": point.call,
            "kappa": kappa,
            "standard_error": error,
            "method": method,
            "matvecs": _MATVECS if is_estimate else 0,
            "repeats": _REPEATS if is_estimate else 0,
        })  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """The whole table; `call` is missing except along the attack."""
        kinds = {"sample": "int32", "depth": "int16", "call": "Int32", "matvecs": "int32"}
        table: pd.DataFrame = pd.DataFrame(self.rows).astype({**kinds, "repeats": "int32"})
        return table


def last_layers(model: nn.Module, head: FinalMap, image: Tensor, count: int) -> list[Layer]:
    """The head, and the `count` convolutions and linear layers that run before it, nearest first.

    Args:
        model: in eval mode.
        head: its proven head.
        image: one image, `(1, ...)`; one forward pass on it defines the order.
        count: the number of layers; fewer if there are no more.

    Raises:
        UsageError: the model computes the head's weight, so that it is not a parameter.
    """
    order: dict[str, None] = {}

    def ran(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            order.pop(name, None)
            order[name] = None  # the last run of a layer defines its position

        return hook

    plain = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LinearLike) and isinstance(module.weight, nn.Parameter)
    }
    handles = [module.register_forward_hook(ran(name)) for name, module in plain.items()]
    try:
        with torch.no_grad(), preserved(image.device):
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    names = list(order)
    if head.name not in names:
        raise UsageError(f"--layers needs a plain weight; that of the head {head.name} is computed")
    before = names[: names.index(head.name)][-count:]
    return [Layer(name, depth) for depth, name in enumerate([head.name, *reversed(before)])]


def check_layers(model: nn.Module, layers: Sequence[Layer], image: Tensor, label: Tensor) -> None:
    """Compute two Hessian-vector products per layer, to find layers that cannot be estimated.

    Raises:
        EnvironmentProblem: curvlinops is not installed.
        Exception: any error of the model when it is differentiated twice.
    """
    for layer in layers:
        layer_sharpness(model, image, label, layer.name, matvecs=1, repeats=2)


def points_of(
    sample: int, clean: Tensor, label: Tensor, adversarial: Tensor, way: Waypoints, index: int
) -> list[Point]:
    """The clean image of a sample, the waypoints of row `index`, and the adversarial image."""
    along = [Point(sample, "attack", w.call, w.image, label) for w in way.of(index)]
    start, end = (
        Point(sample, "clean", None, clean, label),
        Point(sample, "adversarial", None, adversarial, label),
    )
    return [start, *along, end]


def measure_points(
    model: nn.Module,
    head: FinalMap,
    layers: Sequence[Layer],
    points: Sequence[Point],
    seed: int,
    table: LayerTable,
) -> None:
    """Estimate every layer at every point of one sample, into `table`.

    Args:
        model: in eval mode, on the points' device.
        head: its proven head.
        layers: of `last_layers`.
        points: of `points_of`.
        seed: of the first point's probe vectors; each further point has the next seed.
        table: receives the rows.

    Cost: `_MATVECS * _REPEATS` Hessian-vector products for each layer and point.
    """
    exact = _closed_form(model, head, points)
    for number, point in enumerate(points):
        table.add(point, layers[0], exact[number], 0.0, CLOSED_FORM)
        for layer in layers:
            found = layer_sharpness(
                model, point.image[None], point.label[None], layer.name, method=METHOD,
                matvecs=_MATVECS, repeats=_REPEATS, seed=seed + number,
            )  # fmt: skip
            table.add(point, layer, float(found.kappa), float(found.standard_error))


def _closed_form(model: nn.Module, head: FinalMap, points: Sequence[Point]) -> list[float]:
    images = torch.stack([point.image for point in points])
    labels = torch.stack([point.label for point in points])
    recorder = Recorder(model, images, labels, head=head, order=Order(keeps=True))
    with recorder, torch.no_grad(), preserved(images.device):
        model(images)
    return [math.exp(value) for value in recorder.trajectory()["log_kappa"]]


@dataclass(frozen=True)
class LayerMedian:
    """The median over samples at one point of one layer, and the estimate's standard error.

    The error is that of the middle sample, or of the mean of the two middle samples; it does not
    include the differences between samples.
    """

    kappa: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.kappa:.2g} ± {self.standard_error:.1g}"


def layer_median(table: pd.DataFrame, layer: str, point: PointKind) -> LayerMedian | None:
    """The median of one layer's estimates at one kind of point; None if none is finite."""
    rows = table[
        (table["layer"] == layer) & (table["point"] == point) & (table["method"] == METHOD)
    ]
    rows = rows.dropna(subset=["kappa"]).sort_values("kappa")
    if not len(rows):
        return None
    middle = rows.iloc[(len(rows) - 1) // 2 : len(rows) // 2 + 1]
    error = math.sqrt((middle["standard_error"] ** 2).sum()) / len(middle)
    return LayerMedian(float(middle["kappa"].mean()), error)
