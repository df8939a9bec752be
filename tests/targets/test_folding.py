"""Batch norm is folded where its layer's output goes to it alone, and nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatguard.targets.folding import fold_batchnorm


class Block(nn.Module):
    """Two convolutions with their norms; the forward pass is given."""

    def __init__(self, way: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1, bias=False)
        self.norm, self.after = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def _in_turn(m: Any, x: Tensor) -> Tensor:
    out: Tensor = m.after(m.second(m.norm(m.first(x)).relu()))
    return out


def _with_shortcut(m: Any, x: Tensor) -> Tensor:
    """As pre-activation networks: the first output is used twice."""
    start = m.first(x)
    out: Tensor = start + m.after(m.second(m.norm(start).relu()))
    return out


def _written_into(m: Any, x: Tensor) -> Tensor:
    start = m.first(x)
    start.relu_()
    out: Tensor = m.after(m.second(m.norm(start)))
    return out


def _twice(m: Any, x: Tensor) -> Tensor:
    out: Tensor = m.after(m.second(m.norm(m.first(m.norm(m.first(x))))))
    return out


def _two_norms(m: Any, x: Tensor) -> Tensor:
    out: Tensor = m.after(m.first(x)) + m.norm(m.first(x))
    return out


def _on_both_sides(m: Any, x: Tensor) -> Tensor:
    """The whole network runs twice, as on an image and its mirror image."""
    return _in_turn(m, x) + _in_turn(m, x.flip(3))


def _through_a_view(m: Any, x: Tensor) -> Tensor:
    start = m.first(x)
    out: Tensor = m.after(m.second(m.norm(start))) + start.detach().mean()
    return out


@pytest.mark.parametrize(
    ("way", "pairs"),
    [
        (_in_turn, 2), (_with_shortcut, 1), (_written_into, 1), (_twice, 2), (_through_a_view, 1),
        (_on_both_sides, 2), (_two_norms, 0),
    ],
)  # fmt: skip
def test_pairs_are_folded_and_the_output_stays(
    way: Callable[[Any, Tensor], Tensor], pairs: int
) -> None:
    model, images = _trained(Block(way)), torch.rand(4, 3, 6, 6)
    before = model(images)
    assert fold_batchnorm(model, images) == pairs
    assert (model(images) - before).abs().max() <= 1e-5 * before.abs().max()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 2 - pairs


def test_a_linear_layer_is_folded_on_vectors_only() -> None:
    """On (n, length, d) its channels are last, and those of the batch norm are second."""
    vectors = _trained(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), (32, 5))
    sequences = _trained(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), (32, 5, 5))
    assert fold_batchnorm(vectors, torch.rand(3, 5)) == 1
    assert fold_batchnorm(sequences, torch.rand(3, 5, 5)) == 0


def test_what_a_user_watches_ties_or_parametrises_is_left() -> None:
    def pair() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    watched, images = _trained(pair()), torch.rand(2, 3, 4, 4)
    watched[0].register_forward_hook(lambda *_: None)
    shaped = pair()
    torch.nn.utils.parametrizations.weight_norm(shaped[0])
    tied = nn.Sequential(pair(), nn.Conv2d(3, 3, 1))
    tied[1].weight = tied[0][0].weight
    running = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    for model in (watched, _trained(shaped), _trained(tied), running.eval()):
        before = model(images)
        assert fold_batchnorm(model, images) == 0
        assert torch.equal(model(images), before)


def _trained(model: nn.Module, shape: tuple[int, ...] = (32, 3, 6, 6)) -> Any:
    """In eval mode, with statistics and weights of batch norm that are not 0 and 1."""
    torch.manual_seed(0)
    model.train()
    for _ in range(3):
        model(2 * torch.randn(shape) + 1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return model.eval()
