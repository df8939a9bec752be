"""The robust loss, on a model whose worst point is known."""

import pytest
import torch
import torch.nn.functional as F
from support.weight_space import grey, linear, margin
from torch import nn

from flatguard.checks.context import Meter
from flatguard.checks.weight_space.robust_loss import Ascent, clean_losses, robust_losses
from flatguard.data.dataset import Batch
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import distance

DUAL = {"Linf": 1.0, "L2": 2.0}


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_models_worst_loss_is_found(norm) -> None:
    """Within the ball the margin falls by eps times the dual norm of the difference of the rows."""
    model, batch, eps = linear(), grey(), 0.05
    found = robust_losses(model, batch, Ascent(eps, norm, steps=20, restarts=2), 0, Meter())
    rows = model.head.weight.detach().double()
    reach = eps * torch.linalg.vector_norm(rows[0] - rows[1], ord=DUAL[norm])
    truth = F.softplus(-(margin(model, batch) - reach))
    torch.testing.assert_close(found.loss, truth, rtol=2e-4, atol=0)
    assert torch.equal(found.wrong, margin(model, batch) < reach)


def test_a_saturated_loss_is_not_rounded_to_zero() -> None:
    model, batch = linear(), grey()
    with torch.no_grad():
        model.head.weight.mul_(100)
    right = margin(model, batch) > 45
    assert right.any()
    found = clean_losses(model, batch, Meter())
    torch.testing.assert_close(found.loss, F.softplus(-margin(model, batch)), rtol=1e-4, atol=0)
    assert (found.loss[right] > 0).all()


def test_more_search_finds_no_less_and_never_less_than_the_clean_loss() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    batch, seen = grey(), []
    for steps, restarts in ((3, 1), (3, 4), (3, 9)):
        ascent = Ascent(0.1, steps=steps, restarts=restarts)
        seen.append(robust_losses(net, batch, ascent, 7, Meter()).loss)
    clean = clean_losses(net, batch, Meter()).loss
    assert (seen[0] >= clean).all()
    assert (seen[1] >= seen[0]).all()  # the first restarts are the same
    assert (seen[2] >= seen[1]).all()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_every_point_stays_in_ball_and_box_and_is_counted(norm) -> None:
    model, batch, met = linear(), grey(), []
    batch = Batch(batch.images.round(), batch.labels)  # corners of the box
    meter = Meter()
    model.register_forward_pre_hook(lambda _, args: met.append(args[0].detach().clone()))
    robust_losses(model, batch, Ascent(0.3, norm, steps=4, restarts=3), 0, meter)
    assert len(met) == 3 * 5 + 1
    assert meter.forwards == len(met) * len(batch)
    for moved in met:
        assert bool(((moved >= 0) & (moved <= 1)).all())
        assert bool(Budget(norm, 0.3).contains(distance(moved, batch.images, norm)).all())


def test_the_seed_decides_and_the_global_generator_is_put_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    ascent, before = Ascent(0.1, steps=1, restarts=1), torch.random.get_rng_state()
    one, again, other = (robust_losses(net, grey(), ascent, s, Meter()).loss for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_loss_that_is_no_number_is_missing_and_no_mistake() -> None:
    model, batch = linear(), grey()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    found = robust_losses(model, batch, Ascent(0.1, steps=2, restarts=1), 0, Meter())
    assert found.loss.isnan().all()
    assert not found.wrong.any()
