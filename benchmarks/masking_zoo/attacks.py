"""The reference attacks: PGD on stand-ins that know a construction, and Square on the defence.

Nothing here comes from flatguard: what the checks do must not decide what they are scored by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
FRESH_DRAWS, DECIDING_DRAWS = 20, 60
CHUNK = 10
"""PGD steps between two looks at who has fallen."""


@dataclass(frozen=True)
class StandIn:
    """A differentiable model to attack in place of the defended one.

    Attributes:
        module: decides nearly as the defended model does.
        draws: over how many calls a gradient is averaged (EOT).
        smoothing: the spread of uniform noise on the image in each of them, in units of eps.
    """

    module: nn.Module
    draws: int = 1
    smoothing: float = 0.0


@dataclass(frozen=True)
class Budget:
    """How long to search.

    Attributes:
        steps: of one PGD run.
        restarts: runs for each loss; the first one starts at the clean image.
        targets: how many wrong classes are aimed at, one after the other.
        queries: of Square.
    """

    steps: int = 50
    restarts: int = 3
    targets: int = 3
    queries: int = 300


class Survivors:
    """The samples that no example has fooled yet; the defended model alone decides.

    For a randomised model an example counts where more than half of 60 fresh draws are wrong. The
    reference looks often, so that chance alone would fell whoever stands near one half: only what
    more than half of 20 other draws call wrong gets as far as those 60.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, random: bool):
        self.model, self.images, self.labels = model, images, labels
        self.random = random
        self.rows = torch.arange(len(labels))
        self.fell_to: dict[str, int] = {}

    def fooled(self, rows: Tensor, examples: Tensor) -> Tensor:
        """Which of the examples the defended model gets wrong."""
        return self._mostly_wrong(rows, examples, DECIDING_DRAWS if self.random else 1)

    def _mostly_wrong(self, rows: Tensor, examples: Tensor, draws: int) -> Tensor:
        wrong = torch.zeros(len(rows))
        with torch.no_grad():
            for _ in range(draws):
                wrong += (self.model(examples).argmax(dim=1) != self.labels[rows]).float()
        return wrong > draws / 2

    def show(self, rows: Tensor, examples: Tensor, attack: str) -> Tensor:
        """Try examples for these rows; the mask of those that fell, which are out from now on."""
        fell = self._screened(rows, examples)
        if bool(fell.any()):
            gone = rows[fell]
            self.rows = self.rows[~torch.isin(self.rows, gone)]
            self.fell_to[attack] = self.fell_to.get(attack, 0) + len(gone)
        return fell

    def once(self, examples: Tensor, attack: str) -> None:
        """Try one example for every sample that is left, with no second look."""
        rows = self.rows
        fell = self.fooled(torch.arange(len(self.labels)), examples)[rows]
        self.rows = rows[~fell]
        self.fell_to[attack] = int(fell.sum())

    def _screened(self, rows: Tensor, examples: Tensor) -> Tensor:
        if not self.random:
            return self.fooled(rows, examples)
        fell = self._mostly_wrong(rows, examples, FRESH_DRAWS)
        if bool(fell.any()):
            fell[fell.clone()] = self.fooled(rows[fell], examples[fell])
        return fell


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """In double precision, per sample."""
    return F.cross_entropy(logits.double(), labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best wrong logit minus the true one, per sample."""
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.max(dim=1).values - true


def towards(classes: Tensor) -> Loss:
    """The logit of one wrong class a sample minus the true one."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.gather(1, classes[:, None]) - logits.gather(1, labels[:, None]))[:, 0]

    return loss


def attack_all(
    survivors: Survivors, stand_ins: Sequence[StandIn], eps: float, budget: Budget
) -> None:
    """Every stand-in, loss and restart on whoever is left, then Square on the defended model."""
    for number, stand_in in enumerate(stand_ins, start=1):
        for restart in range(budget.restarts):
            for name, loss in (("margin", margin), ("cross-entropy", cross_entropy)):
                pgd(survivors, stand_in, loss, eps, budget.steps, restart, f"{name} {number}")
        for rank in range(1, _targets(survivors, stand_in, budget) + 1):
            targeted(survivors, stand_in, eps, budget.steps, rank, number)
    square(survivors, eps, budget.queries)


def _targets(survivors: Survivors, stand_in: StandIn, budget: Budget) -> int:
    """As many as the budget has, but no more than there are wrong classes."""
    if not budget.targets:
        return 0
    with torch.no_grad():
        classes: int = stand_in.module(survivors.images[:2]).shape[1]
    return min(budget.targets, classes - 1)


def targeted(
    survivors: Survivors, stand_in: StandIn, eps: float, steps: int, rank: int, number: int
) -> None:
    """PGD towards the wrong class that is `rank`-th on the clean image."""
    if not len(survivors.rows):
        return
    everything = torch.zeros_like(survivors.labels)
    with torch.no_grad():
        logits = stand_in.module(survivors.images[survivors.rows])
    logits = logits.scatter(1, survivors.labels[survivors.rows][:, None], float("-inf"))
    everything[survivors.rows] = logits.argsort(dim=1, descending=True)[:, rank - 1]
    pgd(survivors, stand_in, None, eps, steps, 0, f"targeted {number}", everything)


def pgd(
    survivors: Survivors,
    stand_in: StandIn,
    loss: Loss | None,
    eps: float,
    steps: int,
    restart: int,
    name: str,
    classes: Tensor | None = None,
) -> None:
    """Signed steps that shrink from eps/2; every ten of them the defended model is asked."""
    rows = survivors.rows
    if not len(rows):
        return
    clean = survivors.images[rows]
    moved = clean.clone()
    if restart:
        moved = (clean + torch.empty_like(clean).uniform_(-eps, eps)).clamp(0, 1)
    for step in range(steps):
        goal = loss if classes is None else towards(classes[rows])
        assert goal is not None
        gradient = averaged_gradient(stand_in, goal, moved, survivors.labels[rows], eps)
        size = eps * max(0.02, 0.5 * (1 - step / steps))
        moved = moved + size * gradient.sign()
        moved = torch.min(torch.max(moved, clean - eps), clean + eps).clamp(0, 1)
        if (step + 1) % CHUNK == 0 or step + 1 == steps:
            left = ~survivors.show(rows, moved, name)
            rows, clean, moved = rows[left], clean[left], moved[left]
            if not len(rows):
                return


def averaged_gradient(
    stand_in: StandIn, loss: Loss, images: Tensor, labels: Tensor, eps: float
) -> Tensor:
    """The loss's gradient, averaged over a stand-in's draws."""
    total = torch.zeros_like(images)
    for _ in range(stand_in.draws):
        spread = stand_in.smoothing * eps
        at = (images + torch.empty_like(images).uniform_(-spread, spread)).requires_grad_(True)
        total += torch.autograd.grad(loss(stand_in.module(at), labels).sum(), at)[0]
    return total


def square(survivors: Survivors, eps: float, queries: int) -> None:
    """Square (Andriushchenko et al. 2020) on the defended model itself."""
    from pyautoattack.square import SquareAttack

    rows = survivors.rows
    if not len(rows) or not queries:
        return
    images, labels = survivors.images[rows], survivors.labels[rows]
    attack = SquareAttack(
        survivors.model, norm="Linf", eps=eps, n_queries=queries, seed=1, device=images.device
    )
    examples = attack.perturb(images, labels)
    examples = torch.min(torch.max(examples, images - eps), images + eps).clamp(0, 1)
    survivors.show(rows, examples, "Square")
