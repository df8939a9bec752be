"""Mahalanobis distances against the dense formula."""

import torch
from support import digits_target

from flatguard.detection.baselines import TrainingImages
from flatguard.detection.baselines.mahalanobis import Mahalanobis
from flatguard.detection.scores import forward_pass
from flatguard.targets import Target


def test_mahalanobis_is_the_dense_formula(digits_net: Target, training: TrainingImages) -> None:
    baseline = Mahalanobis(digits_net, 64, 0)
    baseline.fit(training)
    with torch.no_grad():
        own = forward_pass(digits_net, training.images).features.double()
        new = forward_pass(digits_net, digits_target.images(10, 300)).features.double()
    means = torch.stack([own[training.labels == c].mean(dim=0) for c in range(10)])
    centred = own - means[training.labels]
    precision = torch.linalg.inv(centred.T @ centred + 1e-6 * torch.eye(own.shape[1]).double())
    apart = new[:, None] - means
    truth = 0.5 * torch.einsum("ncd,de,nce->nc", apart, precision, apart).amin(dim=1)
    torch.testing.assert_close(
        baseline.score(digits_target.images(10, 300)), truth, rtol=5e-2, atol=0
    )
