"""The search on a model whose optimum is known."""

import pytest
import torch
from support.check_contexts import linear
from torch import Tensor

from flatguard.checks.search.gradients import Estimated, Gradient, cross_entropy, tempered
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.geometry.budget import Norm
from flatguard.geometry.distance import distance
from flatguard.twins.outputs import plain

NORMS: list[Norm] = ["Linf", "L2", "L1"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sight", ["gradient", "estimated"])
def test_the_optimum_of_a_linear_model(norm: Norm, sight: str) -> None:
    """Two classes, z = ±w·(x - 1/2): a sample falls exactly where its margin is below eps ‖w‖*.

    The radius lies between the reach of the easier and of the harder half of the samples.
    """
    context, reach = linear(norm)
    found: list[Tensor] = []
    for rows in context.rows(context.survivors):
        if sight == "gradient":
            seen = Gradient(plain(context.model), cross_entropy, context.meter)
        else:
            seen = Estimated(context.model, context.meter, pairs=64, spread=0.01)  # type: ignore[assignment]
        result = search(context, seen, rows, Search(30, random_start=False))
        assert bool((distance(result.images, rows.images, norm) <= context.eps * (1 + 1e-5)).all())
        found.append(result.fooled)
    fell = torch.cat(found)
    sure = reach < 0.8 * context.eps
    if norm != "L1" or sight == "gradient":  # sparse steps along estimates are slow
        assert bool(fell[sure].all())
    assert not bool(fell[reach > 1.001 * context.eps].any())


def test_fooled_samples_leave_the_search() -> None:
    context, reach = linear("Linf")
    rows = next(context.rows(context.survivors))
    before = context.meter.forwards
    sight = Gradient(plain(context.model), tempered, context.meter)
    result = search(context, sight, rows, Search(10))
    spent = context.meter.forwards - before
    assert spent < 11 * len(rows) + len(rows)
    assert bool(context.fools(result.images, rows)[result.fooled].all())
    assert len(reach) == len(rows)
