"""The values stay what they are, to the bit; only the path of the gradient is repaired."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flatguard.twins.straight_through import Group, StraightThrough

LEVELS, EDGES = torch.arange(8) / 8.0, torch.arange(9) / 8.0


def without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        quantized = torch.round(x * 7) / 7
    return quantized * 2


def largest_kept(x: Tensor) -> Tensor:
    least = x.flatten(1).topk(10).values[:, -1].view(-1, 1, 1, 1)
    return x * (x >= least).to(x.dtype)


def hooked(x: Tensor) -> Tensor:
    y = x * 2
    if y.requires_grad:
        y.register_hook(torch.zeros_like)
    return y


def scattered(x: Tensor) -> Tensor:
    """Each value's rank, written at its place."""
    order = x.flatten(1).sort(dim=1).indices
    places = torch.arange(order.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).float()


SORTED = torch.linspace(0, 1, 192)
BANK = torch.rand(30, 192, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(30) % 4


def nearest(x: Tensor) -> Tensor:
    """The numbers of the five nearest examples."""
    return torch.cdist(x.flatten(1), BANK).topk(5, dim=1, largest=False).indices


CUTTING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "round": (lambda x: torch.round(x * 7) / 7, "round"),
    "floor": (lambda x: (x * 16).floor() / 16, "floor"),
    "sign": (lambda x: torch.sign(x - 0.5), "sign"),
    "bytes": (lambda x: (x * 255).byte().float() / 255, "cast"),
    "bytes shifted": (lambda x: (x * 255).to(torch.uint8).float() // 16 * 16, "cast"),
    "integers divided": (lambda x: ((x * 255).int() // 32).float(), "cast"),
    "rounded division": (lambda x: torch.div(x, 0.1, rounding_mode="floor"), "floor"),
    "no_grad": (without_grad, "no_grad"),
    "detach": (lambda x: x.detach() * 2, "detach"),
    "data": (lambda x: x.data + 1, "detach"),
    "thermometer": (lambda x: (x[:, None] > LEVELS.view(1, -1, 1, 1, 1)).float(), "comparison"),
    "where": (lambda x: torch.where(x > 0.5, x, torch.zeros_like(x)), "comparison"),
    "masked": (lambda x: x.masked_fill(x < 0.5, 0.0), "comparison"),
    "both": (lambda x: ((x > 0.3) & ~(x > 0.9)).float(), "comparison"),
    "one hot": (lambda x: F.one_hot(x.flatten(1).argmax(dim=1), 192).float(), "argmax"),
    "winners": (largest_kept, "comparison"),
    "hook": (hooked, "hook"),
    "buckets": (lambda x: torch.bucketize(x.detach(), LEVELS).float() / 8, "bucketize"),
    "table": (lambda x: EDGES[torch.bucketize(x.detach(), LEVELS)], "bucketize"),
    "embedding": (
        lambda x: F.embedding(torch.bucketize(x, LEVELS), EDGES[:, None])[..., 0],
        "bucketize",
    ),
    "votes": (lambda x: F.one_hot(CLASSES, 4).float()[nearest(x)].sum(1), "topk"),
    "classes": (lambda x: F.one_hot(CLASSES[nearest(x)], 4).float().sum(1), "topk"),
    "nearest": (lambda x: F.one_hot(CLASSES[nearest(x)[:, 0]], 4).float(), "topk"),
    "majority": (lambda x: F.one_hot(CLASSES[nearest(x)].mode(1).values, 4).float(), "topk"),
    "ranks": (lambda x: x.flatten(1).argsort(1).argsort(1) / 192, "rank"),
    "ranks from the top": (lambda x: SORTED[(-x).flatten(1).argsort(1).argsort(1)], "rank"),
    "ranks by scatter": (scattered, "rank"),
    "part": (lambda x: torch.cat([x[:, :2], (x[:, 2:] * 7).round() / 7], 1), "round"),
    "image by image": (lambda x: torch.stack([(i * 255).byte() for i in x]).float(), "cast"),
}
SATURATING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "tanh": (lambda x: torch.tanh(x * 1000), "tanh"),
    "sigmoid": (lambda x: torch.sigmoid(1e4 * (x - 0.5)), "sigmoid"),
    "softmax": (lambda x: (x.flatten(1) * 1e4).softmax(1), "softmax"),
    "clamp": (lambda x: x.clamp(0.45, 0.55), "clamp"),
    "hardtanh": (lambda x: F.hardtanh(x * 10), "hardtanh"),
}


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    y = f(x)
    if not y.requires_grad:
        return None
    return torch.autograd.grad((y * torch.linspace(1, 2, y.numel()).view_as(y)).sum(), x)[0]


@pytest.mark.parametrize(
    ("group", "name"),
    [("cutting", name) for name in CUTTING] + [("saturating", name) for name in SATURATING],
)
def test_an_operation_keeps_its_values_and_gains_a_gradient(group: Group, name: str) -> None:
    f, met = (CUTTING if group == "cutting" else SATURATING)[name]
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    usual = gradient(f, x)
    usual_alive = 0.0 if usual is None else float((usual != 0).double().mean())
    mode = StraightThrough({group})
    with mode:
        values = f(x)
    with StraightThrough({group}):
        repaired = gradient(f, x)
    assert torch.equal(values.detach(), f(x.detach()))
    assert mode.seen[met] > 0
    assert repaired is not None
    assert float((repaired != 0).double().mean()) > max(0.9, usual_alive)


def test_other_stages_are_left_alone() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    with StraightThrough({"saturating"}) as mode:
        rounded = x.round()
    assert torch.autograd.grad(rounded.sum(), x)[0].abs().sum() == 0
    assert not mode.seen


def test_numpy_still_works_inside() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    with StraightThrough({"cutting"}):
        array = x.detach().numpy()
    assert array.shape == (2, 3)


def test_grad_mode_is_as_found() -> None:
    x = torch.rand(2, requires_grad=True)
    with StraightThrough({"cutting"}):
        without_grad(x)
    assert torch.is_grad_enabled()
