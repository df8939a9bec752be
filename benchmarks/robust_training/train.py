"""Adversarial training of one small network, and the variants that Stutz et al. compare.

SGD with momentum and a learning rate that drops twice, PGD-7 examples, no early stopping: the
recipe of Stutz et al. (2021), Section 3, at the size of 8×8 digits. A variant differs from the
baseline in one thing only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.masking_zoo.digits import pgd_examples
from benchmarks.robust_training.data import EPS, Parts
from flatguard.data.dataset import Batch
from flatguard.geometry.weights import layers_of, steepest

EPOCHS = 80
DROPS = (32, 64)
"""At 40% and 80%, each to a tenth: robust overfitting begins after the first (Figure 2)."""

RATE, MOMENTUM, BATCH, STEPS = 0.05, 0.9, 25, 7
WARM_UP = 8
"""Epochs before weights are perturbed; from the first on, some networks never learn anything."""

CLASSES = 10


@dataclass(frozen=True)
class Variant:
    """What a training does beside adversarial training.

    Attributes:
        name: of its family and strength: `awp-0.02`.
        awp: the relative size of adversarial weight perturbations (Wu et al. 2020); 0 is none.
        weight_decay: of SGD.
        label_noise: the share of labels replaced by random ones, anew in every batch.
        label_smoothing: of the cross-entropy.
    """

    name: str
    awp: float = 0.0
    weight_decay: float = 0.0
    label_noise: float = 0.0
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """What is kept at the end of an epoch.

    Attributes:
        number: from 1.
        state: the network's weights.
        held_out_error: robust error under PGD-7 on the held-out images: what stops early.
    """

    number: int
    state: dict[str, Tensor]
    held_out_error: float


def small_net() -> nn.Module:
    """Two convolutions and two linear layers for 8×8 images; `--arch` names it."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip


def train(variant: Variant, seed: int, parts: Parts, every: int) -> Iterator[Epoch]:
    """Train one network, and give every so many-th epoch; all randomness is the seed's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = small_net()
        optimiser = torch.optim.SGD(
            net.parameters(), RATE, momentum=MOMENTUM, weight_decay=variant.weight_decay
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(DROPS))
        for number in range(1, EPOCHS + 1):
            for rows in torch.randperm(len(parts.training)).split(BATCH):
                x, y = parts.training.images[rows], parts.training.labels[rows]
                _step(net, optimiser, variant, x, y, warm=number > WARM_UP)
            schedule.step()
            if number % every == 0:
                state = copy.deepcopy(net.state_dict())
                yield Epoch(number, state, error(net, parts.held_out))


def error(net: nn.Module, batch: Batch) -> float:
    """The robust error under PGD-7 from one random start: all that early stopping looks at."""
    moved = pgd_examples(net, batch.images, batch.labels, EPS, STEPS)
    with torch.no_grad():
        return float((net(moved).argmax(dim=1) != batch.labels).float().mean())


def _step(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    variant: Variant,
    x: Tensor,
    y: Tensor,
    warm: bool,
) -> None:
    noisy = torch.rand(len(y)) < variant.label_noise
    y = torch.where(noisy, torch.randint_like(y, CLASSES), y)
    moved = pgd_examples(net, x, y, EPS, STEPS)

    def loss() -> Tensor:
        return F.cross_entropy(net(moved), y, label_smoothing=variant.label_smoothing)

    optimiser.zero_grad()
    if variant.awp and warm:
        _gradient_at_the_worst(net, variant.awp, loss)
    else:
        loss().backward()
    optimiser.step()


def _gradient_at_the_worst(net: nn.Module, size: float, loss: Callable[[], Tensor]) -> None:
    """Wu et al. (2020): the gradient where one step within the relative ball raises the loss."""
    weights = {name: weight.clone() for name, weight in layers_of(net).items()}
    loss().backward()
    uphill = steepest({name: _gradient(net, name) for name in weights}, weights)
    net.zero_grad()
    _put(net, {name: (weights[name] + size * uphill[name]).float() for name in weights})
    loss().backward()
    _put(net, weights)


def _gradient(net: nn.Module, name: str) -> Tensor:
    gradient = net.get_parameter(name).grad
    assert gradient is not None, "every layer takes part"
    return gradient


def _put(net: nn.Module, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            net.get_parameter(name).copy_(weight)
