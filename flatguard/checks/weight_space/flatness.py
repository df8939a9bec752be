r"""Flatness of the loss in weight space, with the attack run anew on every perturbed model.

Average case, Stutz et al. (2021), Eq. (1) and (2):

$$\mathbb{E}_\nu \max_\delta L(f(x + \delta; w + \nu), y) - \max_\delta L(f(x + \delta; w), y),$$

the mean over samples, with ν uniform on the rim $\|\nu^{(l)}\| = \xi \|w^{(l)}\|$ of every layer.
Worst case, in the full paper: the largest mean over samples instead of the mean over ν, where ν and
δ climb together. Both for the clean loss as well (δ = 0). Every sample's loss at
every ν is stored, so that flatness and its interval can be computed again without the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatguard.checks.context import Meter
from flatguard.checks.weight_space.robust_loss import Ascent, clean_losses, robust_losses
from flatguard.data.dataset import Batch
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.geometry.weights import Movable, Weights, in_ball, on_sphere, project, steepest
from flatguard.request import derive_seed
from flatguard.targets.weights_hash import weights_sha256

_Case = Literal["reference", "average", "worst-clean", "worst-robust"]

_STEP = 0.01
"""The length of a step in weights, as a share of each layer's: the authors' published evaluation.
It is longer than a radius of 0.003, so ν mostly stays on the rim."""


@dataclass(frozen=True)
class Neighbourhood:
    """Which perturbed models are measured; the defaults are the paper's.

    Attributes:
        xi: the relative radius of the average case.
        directions: how many ν it draws.
        worst_xi: the relative radius of the worst case.
        worst_steps: gradients of each joint ascent.
        worst_restarts: joint ascents; 0 leaves the worst case out.
    """

    xi: float = 0.5
    directions: int = 10
    worst_xi: float = 0.003
    worst_steps: int = 20
    worst_restarts: int = 10


@dataclass(frozen=True)
class Scene:
    """What losses are measured on, and how.

    Attributes:
        batches: images and labels, on the model's device.
        ascent: the attack that finds the robust loss.
        seed: of all random choices.
        meter: counts the rows that go forward.
        advanced: receives the number of models that were measured since its last call.
    """

    batches: Sequence[Batch]
    ascent: Ascent
    seed: int
    meter: Meter
    advanced: Callable[[int], None] = lambda _: None

    def generator(self, part: str, index: int) -> torch.Generator:
        """For one choice in weight space."""
        return torch.Generator().manual_seed(derive_seed(self.seed, index, part))


@dataclass(frozen=True)
class Losses:
    """Every sample's losses at every perturbed model.

    Attributes:
        table: a row for each sample and model: `sample` (its place in the batches), which model,
            `clean_loss`, `clean_wrong`, `robust_loss`, `robust_wrong`. Losses that were not finite
            are NaN.
        models: a row for each model: which, and `weights_sha256`.
    """

    table: pd.DataFrame
    models: pd.DataFrame

    @staticmethod
    def joined(parts: Sequence[Losses]) -> Losses:
        """All parts together."""
        return Losses(
            pd.concat([part.table for part in parts], ignore_index=True),
            pd.concat([part.models for part in parts], ignore_index=True),
        )

    def called(self, **which: Any) -> Losses:
        """The same losses, with columns that name the model."""
        return Losses(self.table.assign(**which), self.models.assign(**which))


@own_state()
def weight_flatness(model: nn.Module, scene: Scene, around: Neighbourhood) -> Losses:
    """Every sample's clean and robust loss at w and at every w + ν; `case` and `index` say which.

    The attack's random starts are the same at every ν, so that their chance cancels in the
    difference.

    Raises:
        ModelError: the model cannot be copied, or has nothing to perturb.

    Cost: 1 + directions + 2 · worst_restarts attacks on all samples, and 2 · worst_restarts ·
    worst_steps passes for the ascents.
    """
    movable = Movable(model)
    parts = [losses_at(movable, {}, scene).called(case="reference", index=0)]
    for case, index, step in _steps(movable, scene, around):
        parts.append(losses_at(movable, step, scene).called(case=case, index=index))
    return Losses.joined(parts)


def models_of(around: Neighbourhood) -> int:
    """How many models `weight_flatness` measures."""
    return 1 + around.directions + 2 * around.worst_restarts


def _steps(
    movable: Movable, scene: Scene, around: Neighbourhood
) -> Iterator[tuple[_Case, int, Weights]]:
    for index in range(around.directions):
        drawn = on_sphere(movable.weights, around.xi, scene.generator("direction", index))
        yield "average", index, drawn
    for index in range(around.worst_restarts):
        yield "worst-clean", index, climb(movable, scene, around, index, robust=False)
        yield "worst-robust", index, climb(movable, scene, around, index, robust=True)


def climb(
    movable: Movable, scene: Scene, around: Neighbourhood, index: int, *, robust: bool
) -> Weights:
    """A ν of the worst case: gradient ascent in the weights, from a random point of their ball.

    Every step uses one batch. Where `robust`, its images climb by the same gradient; each batch
    continues from its last images in its next turn.
    """
    part = f"climb {'robust' if robust else 'clean'}"
    step = in_ball(movable.weights, around.worst_xi, scene.generator(part, index))
    with seeded(derive_seed(scene.seed, index, part), scene.batches[0].images.device):
        moved = [scene.ascent.start(b.images) if robust else b.images for b in scene.batches]
    for _ in range(around.worst_steps):
        for number, batch in enumerate(scene.batches):
            scene.meter.add(len(batch))
            with movable.at(step) as model:
                uphill, gradient = _both(movable, model, moved[number], batch.labels)
            if robust:
                moved[number] = scene.ascent.step(moved[number], gradient, batch.images)
            added = {name: step[name] + _STEP * uphill[name] for name in step}
            step = project(added, movable.weights, around.worst_xi)
    return step


def _both(
    movable: Movable, model: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Weights, Tensor]:
    """The steepest step in the weights, and the gradient in the images."""
    x = images.detach().requires_grad_(True)
    with movable.differentiable() as leaves, torch.enable_grad():
        loss = F.cross_entropy(model(x), labels, reduction="sum")
        found = torch.autograd.grad(loss, [x, *leaves.values()], allow_unused=True)
    zeros = [torch.zeros_like(leaf) for leaf in leaves.values()]
    slopes = {
        name: zero if slope is None else slope.detach()
        for name, slope, zero in zip(leaves, found[1:], zeros, strict=True)
    }
    of_images = torch.zeros_like(x) if found[0] is None else found[0]
    return steepest(slopes, movable.weights), torch.nan_to_num(of_images, 0.0, 0.0, 0.0)


def losses_at(movable: Movable, step: Weights, scene: Scene) -> Losses:
    """All samples at w + ν."""
    frames, first = [], 0
    with movable.at(step) as model:
        name = weights_sha256(model)
        for number, batch in enumerate(scene.batches):
            seed = derive_seed(scene.seed, number, "robust loss")
            clean = clean_losses(model, batch, scene.meter)
            worst = robust_losses(model, batch, scene.ascent, seed, scene.meter)
            columns = {
                "sample": range(first, first + len(batch)),
                "clean_loss": clean.loss.cpu().numpy(),
                "clean_wrong": clean.wrong.cpu().numpy(),
                "robust_loss": worst.loss.cpu().numpy(),
                "robust_wrong": worst.wrong.cpu().numpy(),
            }
            frames.append(pd.DataFrame(columns))
            first += len(batch)
    scene.advanced(1)
    models = pd.DataFrame({"weights_sha256": [name]})
    return Losses(pd.concat(frames, ignore_index=True), models)
