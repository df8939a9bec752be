"""What was measured on real networks holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchattacks
from safetensors.torch import load_file
from support.architectures import resnet20
from torch import Tensor

from flatguard.data import load_dataset
from flatguard.detection.auroc import auroc
from flatguard.detection.conformal import atypicality
from flatguard.detection.scores import forward_pass, one_pass_scores
from flatguard.detection.stump import fit_stump
from flatguard.targets import Target, prepare
from flatguard.targets.normalized import Normalized
from flatguard.targets.target import make_target

ATTACKED = 300


@pytest.fixture(scope="module")
def network(real: Path) -> Target:
    net = resnet20()
    net.load_state_dict(load_file(real / "checkpoints" / "cifar10_resnet20_standard.safetensors"))
    module = Normalized(net, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()
    images = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, 8).images
    return prepare(make_target(module, "resnet20", "real"), images)


@pytest.fixture(scope="module")
def pairs(real: Path, network: Target) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images, PGD-10 examples at 8/255 of the first ones, and more clean images."""
    batch = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, 1000)
    images, labels = batch.images[:ATTACKED], batch.labels[:ATTACKED]
    attack = torchattacks.PGD(
        network.model, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False
    )
    return images, attack(images, labels), batch.images[ATTACKED : ATTACKED + 400]


def kappa(target: Target, images: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return one_pass_scores(forward_pass(target, images))


def test_a_stump_finds_pgd_10(network: Target, pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Measured by others: 95.3% on log κ, 98.0% on ‖φ‖ (500 images)."""
    clean, after = kappa(network, pairs[0]), kappa(network, pairs[1])
    kinds, groups = np.repeat([False, True], ATTACKED), np.tile(np.arange(ATTACKED), 2)
    found = {
        name: fit_stump(np.r_[clean[name], after[name]], kinds, groups, 0).accuracy
        for name in ("log-kappa", "feature-norm")
    }
    assert found["log-kappa"] >= 0.94
    assert found["feature-norm"] > found["log-kappa"]


def test_a_hundredfold_surer_network_is_read_as_well(
    network: Target, pairs: tuple[Tensor, Tensor, Tensor]
) -> None:
    images, adversarial, more = pairs
    surer = prepare(network, images[:8], logit_scale=100.0)
    areas, plain = {}, {}
    for scale, target in ((1, network), (100, surer)):
        clean, after, reference = (
            kappa(target, x)["log-kappa"] for x in (images, adversarial, more)
        )
        own = np.arange(ATTACKED)
        areas[scale] = auroc(
            atypicality(clean, reference, "two-sided"),
            atypicality(after, reference, "two-sided"), own, 0,
        ).value  # fmt: skip
        naive = [plainly(target, x) for x in (images, adversarial)]
        plain[scale] = auroc(-naive[0], -naive[1], own, 0).value
    print(areas, plain)
    assert areas[1] > 0.95
    assert abs(areas[100] - areas[1]) <= 0.01
    assert plain[100] < 0.6 < plain[1]  # 1 - Σp² is exactly 0 for nearly all of them


def plainly(target: Target, images: Tensor) -> np.ndarray:
    """κ as it is printed, in float32."""
    with torch.no_grad():
        seen = forward_pass(target, images)
        p = seen.logits.softmax(dim=1)
        trace = (1 - p.square().sum(dim=1)) * seen.features.square().sum(dim=1)
        return (trace * target.head.module.weight.square().sum()).numpy()  # type: ignore[union-attr]
