"""The quantities in the bounds, against autograd."""

import pytest
import torch
from support.studies import Plain, subject_of
from torch import nn

from flatguard.studies.walter.local import Local, look_locally


@pytest.fixture(scope="module")
def local(plain_digits: Plain) -> Local:
    return look_locally(subject_of("walter-eq5", plain_digits, 12))


def test_slope_is_the_norm_of_the_weight_gradient(local: Local) -> None:
    weight = local.head.module.weight
    for i in range(3):
        leaf = weight.detach().double().requires_grad_(True)
        phi = local.path.features[0, i].double()
        bias = local.head.module.bias.detach().double()
        loss = nn.functional.cross_entropy((leaf @ phi + bias)[None], local.path.labels[i][None])
        (gradient,) = torch.autograd.grad(loss, leaf)
        true = float(gradient.norm() * leaf.detach().norm())
        assert float(local.slope[i]) == pytest.approx(true, rel=1e-3, abs=1e-12)


def test_radius_movement_and_lipschitz_are_of_one_scale(local: Local) -> None:
    features = local.path.features.double()
    torch.testing.assert_close(local.radius, features[0].norm(dim=1))
    torch.testing.assert_close(
        local.moved[-1], (features[-1] - features[0]).norm(dim=1) / features[0].norm(dim=1),
        rtol=1e-4, atol=1e-8,
    )  # fmt: skip
    assert bool(
        (local.moved[1:] <= 1.05 * local.lipschitz * local.path.l2[1:] / local.radius).all()
    )
    assert len(local.batch.images) == len(local.lipschitz) == int(local.path.correct().sum())


def test_shrinking_the_features_keeps_kappa(local: Local) -> None:
    whole, shrunk = local.printed(), local.printed(1e-2)
    torch.testing.assert_close(whole.kappa, shrunk.kappa)
    torch.testing.assert_close(shrunk.radius, whole.radius * 1e-2)
    torch.testing.assert_close(shrunk.lipschitz, whole.lipschitz * 1e-2)
