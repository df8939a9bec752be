"""The networks of the comparison: honest robust ones, and two with mean-centred sparsity.

Those that are trained here learn on other images than they are attacked on. Weights are kept in
the git-ignored cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.masking_zoo import digits, networks
from benchmarks.masking_zoo.digits import pgd_examples
from benchmarks.masking_zoo.networks import Network, Standardised

CACHE = Path(__file__).parent / "cache"
_UNSEEN = 200
"""CIFAR's first images are attacked, the other 800 train."""


@dataclass(frozen=True)
class Case:
    """A network of the comparison.

    Attributes:
        build: the network with its images and radius.
        count: how many of the images are attacked.
        is_honest: whether nothing in it hinders gradients.
    """

    build: Callable[[], Network]
    count: int
    is_honest: bool = True


class MeanSparse(nn.Module):
    """Activations within some deviations of their channel's mean become the mean.

    Amini et al. 2024. The gradient of what is replaced is 0.
    """

    mean: Tensor
    width: Tensor

    def __init__(self, seen: Tensor, deviations: float):
        super().__init__()
        over = [axis for axis in range(seen.ndim) if axis != 1]
        self.register_buffer("mean", seen.mean(dim=over, keepdim=True))
        self.register_buffer("width", deviations * seen.std(dim=over, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """The sparsified activations."""
        return torch.where((x - self.mean).abs() <= self.width, self.mean.expand_as(x), x)


class PooledDigits(nn.Module):
    """Max-pooling, batch normalisation and SiLU: unlike the zoo's network."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.SiLU(),
            nn.Flatten(), nn.Linear(48 * 16, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits


def pooled_digits() -> Network:
    """Trained by PGD-7 at 0.1."""
    images, labels = digits.digits()
    seen, eps = digits.TRAINING_IMAGES, 0.1

    def train() -> nn.Module:
        return _robust(PooledDigits(), images[:seen], labels[:seen], eps, epochs=30)

    net = _trained("pooled_digits", PooledDigits(), train)
    return Network(net, images[seen:], labels[seen:], eps)


def tuned_further() -> Network:
    """The real network that was trained by PGD at 2/255, trained further at 4/255."""
    base, eps = networks.load("cnn_a_pgd"), 4 / 255
    images, labels = base.images, base.labels

    def train() -> nn.Module:
        net = copy.deepcopy(base.module)
        return _robust(net, images[_UNSEEN:], labels[_UNSEEN:], eps, epochs=8, rate=1e-4)

    net = _trained("tuned_further", copy.deepcopy(base.module), train)
    return Network(net, images, labels, eps)


def trained_small() -> Network:
    """A small network that learns on 800 images only."""
    images, labels = networks.real_images()
    eps = 4 / 255

    def fresh() -> nn.Module:
        return Standardised(networks.architectures().cnn(8, 16, 1024), *networks.CIFAR)

    def train() -> nn.Module:
        return _robust(fresh(), images[_UNSEEN:], labels[_UNSEEN:], eps, epochs=30)

    return Network(_trained("trained_small", fresh(), train), images, labels, eps)


def sparse_before(name: str, deviations: float) -> Network:
    """Sparsified in front of each ReLU of a real network, as in the paper."""
    base = networks.load(name)
    whole = copy.deepcopy(base.module)
    assert isinstance(whole, Standardised)
    assert isinstance(whole.net, nn.Sequential)
    with torch.no_grad():
        x = (base.images[_UNSEEN:] - whole.mean) / whole.std
        layers: list[nn.Module] = []
        for layer in whole.net:
            if isinstance(layer, nn.ReLU):
                layers.append(MeanSparse(x, deviations))
                x = layers[-1](x)
            layers.append(layer)
            x = layer(x)
    whole.net = nn.Sequential(*layers)
    return Network(whole.eval(), base.images, base.labels, base.eps)


def at(name: str, eps: float) -> Network:
    """A network of the zoo at another radius than its own."""
    return replace(networks.load(name), eps=eps)


class SparseDigits(nn.Module):
    """The zoo's robust digits, sparsified behind each ReLU."""

    def __init__(self, net: digits.DigitsNet, seen: Tensor, deviations: float):
        super().__init__()
        self.net, self.stages = net, nn.ModuleList()
        with torch.no_grad():
            for layer in (net.conv1, net.conv2, net.fc1):
                seen = torch.relu(layer(seen.flatten(1) if layer is net.fc1 else seen))
                self.stages.append(MeanSparse(seen, deviations))
                seen = self.stages[-1](seen)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        net, (first, second, third) = self.net, self.stages
        h = second(torch.relu(net.conv2(first(torch.relu(net.conv1(x))))))
        logits: Tensor = net.fc2(third(torch.relu(net.fc1(h.flatten(1)))))
        return logits


def sparse_digits(deviations: float) -> Network:
    """Sparsified behind each ReLU."""
    base = networks.load("digits_robust")
    net, seen = copy.deepcopy(base.module), digits.digits()[0][: digits.TRAINING_IMAGES]
    assert isinstance(net, digits.DigitsNet)
    return Network(SparseDigits(net, seen, deviations).eval(), base.images, base.labels, base.eps)


def _robust(
    net: nn.Module, images: Tensor, labels: Tensor, eps: float, epochs: int, rate: float = 1e-3
) -> nn.Module:
    examples = partial(pgd_examples, eps=eps, steps=7)
    return digits.fit(net.train(), images, labels, epochs=epochs, perturb=examples, rate=rate)


def _trained(name: str, net: nn.Module, train: Callable[[], nn.Module]) -> nn.Module:
    file = CACHE / f"{name}.safetensors"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            save_file(train().state_dict(), str(file))
    net.load_state_dict(load_file(str(file)))
    return net.eval()


CASES: dict[str, Case] = {
    "cnn_base_certified": Case(partial(networks.load, "cnn_base_certified"), 200),
    "cnn_wide_certified": Case(partial(networks.load, "cnn_wide_certified"), 200),
    "cnn_a_pgd": Case(partial(networks.load, "cnn_a_pgd"), 200),
    "resnet20_rsfgsm": Case(partial(networks.load, "resnet20_rsfgsm"), 200),
    "cnn_wide_certified_at_8": Case(partial(at, "cnn_wide_certified", 8 / 255), 200),
    "cnn_a_pgd_at_8": Case(partial(at, "cnn_a_pgd", 8 / 255), 200),
    "resnet20_rsfgsm_at_2": Case(partial(at, "resnet20_rsfgsm", 2 / 255), 200),
    "digits_robust": Case(partial(networks.load, "digits_robust"), 300),
    "pooled_digits": Case(pooled_digits, 300),
    "tuned_further": Case(tuned_further, 200),
    "trained_small": Case(trained_small, 200),
    "sparse_cnn_a_pgd": Case(partial(sparse_before, "cnn_a_pgd", 0.8), 200, is_honest=False),
    "sparse_digits": Case(partial(sparse_digits, 0.65), 300, is_honest=False),
}
