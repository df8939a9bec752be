"""The attack that knows the detector."""

import numpy as np
import pytest
import torch
import torchattacks
from support import digits_target

from flatguard.detection import SharpnessDetector
from flatguard.detection.adaptive import AttackEffort, Evaded, adaptive_attack
from flatguard.errors import UsageError
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import distance
from flatguard.targets import Target
from flatguard.targets.weights_hash import weights_sha256

EPS = 0.3


@pytest.fixture(scope="module")
def fitted(digits_net: Target) -> SharpnessDetector:
    return SharpnessDetector(digits_net, alpha=0.05).fit(digits_target.images(400, 300))


def rights(target: Target) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = digits_target.images(60), digits_target.labels(60)
    with torch.no_grad():
        right = target.model(images).argmax(dim=1) == labels
    return images[right], labels[right]


def attacked(target: Target, fitted: SharpnessDetector, budget: Budget, seed: int = 0) -> Evaded:
    images, labels = rights(target)
    return adaptive_attack(target, fitted.thresholds_, images, labels, budget, AttackEffort(), seed)


@pytest.mark.parametrize("budget", [Budget("Linf", EPS), Budget("L2", 2.0), Budget("L1", 12.0)])
def test_what_it_claims_is_so(
    digits_net: Target, fitted: SharpnessDetector, budget: Budget
) -> None:
    images, labels = rights(digits_net)
    before = weights_sha256(digits_net.model)
    found = attacked(digits_net, fitted, budget)
    assert weights_sha256(digits_net.model) == before
    assert found.evaded.sum() > 0
    own = torch.from_numpy(found.evaded)
    fooling = found.images[own]
    seen = fitted.classify(fooling)
    assert not seen.flagged.any()
    assert (seen.predicted != labels[own].numpy()).all()
    assert bool(budget.contains(distance(fooling, images[own], budget.norm)).all())
    assert float(fooling.min()) >= 0
    assert float(fooling.max()) <= 1
    assert not (found.evaded & ~found.misclassified).any()
    np.testing.assert_array_equal(found.way != "", found.evaded)


def test_it_evades_more_than_an_attack_that_does_not_know(
    digits_net: Target,
) -> None:
    """Of a detector so strict that half of the clean images are flagged."""
    fitted = SharpnessDetector(digits_net, alpha=0.5).fit(digits_target.images(400, 300))
    images, labels = rights(digits_net)
    blind = torchattacks.PGD(digits_net.model, eps=EPS, alpha=EPS / 4, steps=40)(images, labels)
    seen = fitted.classify(blind)
    lucky = ((seen.predicted != labels.numpy()) & ~seen.flagged).mean()
    knowing = attacked(digits_net, fitted, Budget("Linf", EPS)).evaded.mean()
    assert knowing > lucky + 0.2


def test_a_seed_decides_it(digits_net: Target, fitted: SharpnessDetector) -> None:
    one, two = (attacked(digits_net, fitted, Budget("Linf", 0.1), seed=4) for _ in range(2))
    torch.testing.assert_close(one.images, two.images, rtol=0, atol=0)


@pytest.mark.parametrize("budget", [Budget("L0", 3.0), Budget("none", None)])
def test_without_a_radius_it_says_so(
    digits_net: Target, fitted: SharpnessDetector, budget: Budget
) -> None:
    with pytest.raises(UsageError, match="needs a radius in Linf, L2, L1"):
        attacked(digits_net, fitted, budget)
