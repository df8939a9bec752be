"""The loss along random directions."""

import numpy as np
from support.weight_space import few_digits, fitted, scene

from flatguard.checks.weight_space.flatness import Neighbourhood, weight_flatness
from flatguard.checks.weight_space.landscape import landscape

FEW = Neighbourhood(directions=3, worst_restarts=1, worst_steps=3)
LOSSES = ["clean_loss", "robust_loss"]


def test_the_landscape_passes_through_the_model_and_rises_away_from_it() -> None:
    model, where = fitted(200), scene(few_digits())
    found = landscape(model, where, directions=3, points=(-1.0, 0.0, 1.0))
    means = found.table.groupby(["direction", "t"])[LOSSES].mean().unstack("t")
    here = weight_flatness(model, where, Neighbourhood(directions=0, worst_restarts=0))
    for loss in LOSSES:
        np.testing.assert_allclose(means[loss][0.0], here.table[loss].mean(), rtol=1e-12)
        assert (means[loss][1.0] > means[loss][0.0]).all()
        assert (means[loss][-1.0] > means[loss][0.0]).all()
