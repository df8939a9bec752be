"""The training study: its variants do what they say, and its table is what was kept."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.robust_training import page, train
from benchmarks.robust_training.__main__ import VARIANTS
from benchmarks.robust_training.data import parts
from benchmarks.robust_training.train import Variant
from flatguard.data.dataset import Batch
from flatguard.studies.result import Result
from flatguard.studies.stutz.checkpoint import Checkpoint


def test_the_parts_are_disjoint_and_whole() -> None:
    found = parts()
    rows = [
        tuple(image.flatten().tolist()) for part in vars(found).values() for image in part.images
    ]
    assert len(rows) == 1797
    assert len(set(rows)) == len(rows)


def test_the_gradient_of_awp_is_that_at_the_perturbed_weights() -> None:
    """Of one linear layer: by hand, at w + γ‖w‖ g/‖g‖; and the weights are put back exactly."""
    torch.manual_seed(0)
    net = nn.Linear(6, 3, bias=False)
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    weight = net.weight.detach().clone()

    def gradient(at: torch.Tensor) -> torch.Tensor:
        at = at.clone().requires_grad_(True)
        return torch.autograd.grad(F.cross_entropy(x @ at.T, y), at)[0]

    g = gradient(weight)
    expected = gradient(weight + 0.1 * weight.norm() * g / g.norm())
    train._gradient_at_the_worst(net, 0.1, lambda: F.cross_entropy(net(x), y))
    torch.testing.assert_close(net.weight.grad, expected)
    assert torch.equal(net.weight.detach(), weight)


@pytest.mark.parametrize("variant", [VARIANTS[0], Variant("awp-0.01", awp=0.01)])
def test_a_training_is_its_seeds(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 2)
    monkeypatch.setattr(train, "WARM_UP", 1)
    whole = parts()
    few = type(whole)(*(Batch(p.images[:50], p.labels[:50]) for p in vars(whole).values()))
    before = torch.random.get_rng_state()
    one, again, other = (list(train.train(variant, seed, few, 1)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [epoch.number for epoch in one] == [1, 2]
    for name, weight in one[-1].state.items():
        assert torch.equal(weight, again[-1].state[name])
    assert any(not torch.equal(w, other[-1].state[name]) for name, w in one[-1].state.items())
    assert 0.0 <= one[-1].held_out_error <= 1.0


def test_the_table_is_drawn_from_the_kept_result() -> None:
    rows = Result.model_validate_json(page.RESULT.read_bytes()).figures["checkpoints"]
    table = page.drawn([Checkpoint.model_validate(row) for row in rows])
    assert f"{page.BEGIN}\n\n{table}\n\n{page.END}" in page.PAGE.read_text("utf-8")
    assert len(rows) == 5 * (len(VARIANTS) + 1)
