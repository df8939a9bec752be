"""The odds are odd: how log-odds move under noise, against how they move for clean images."""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.environment.randomness import seeded
from flatguard.geometry.precision import wide

DRAWS = 16
NOISE = 0.02
"""Standard deviation of the Gaussian noise, for images in [0, 1]."""

SMALLEST_DEVIATION = 1e-6


class Odds(Baseline):
    r"""$\max_{z \ne y} (\bar g_{yz}(x) - \mu_{yz}) / \sigma_{yz}$ with y the predicted class.

    $\bar g_{yz}(x) = \mathbb{E}_\eta [f_z(x + \eta) - f_y(x + \eta)] - [f_z(x) - f_y(x)]$; μ and σ
    are its mean and deviation over clean images predicted as y. Cost: 17 forward passes.
    """

    name = "odds"
    source = "Roth, Kilcher & Hofmann (2019)"
    departs = f"{DRAWS} draws of Gaussian noise of one size, {NOISE:g}; the paper tries several"

    def fit(self, given: TrainingImages) -> None:
        """Means and deviations by predicted class; over all classes where one has under two."""
        moved, predicted = self._moved(given.images)
        classes = moved.shape[1]
        self._mean = moved.mean(dim=0).repeat(classes, 1)
        self._deviation = moved.std(dim=0).repeat(classes, 1)
        for y in range(classes):
            here = moved[predicted == y]
            if len(here) >= 2:
                self._mean[y], self._deviation[y] = here.mean(dim=0), here.std(dim=0)
        self._deviation.clamp_min_(SMALLEST_DEVIATION)

    def score(self, images: Tensor) -> Tensor:
        """`(n,)`, in standard deviations."""
        moved, predicted = self._moved(images)
        scores = (moved - self._mean[predicted]) / self._deviation[predicted]
        return scores.scatter(1, predicted[:, None], float("-inf")).amax(dim=1)

    def _moved(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How far each class's log-odds against the predicted one move, `(n, k)`; and that one."""
        rows, classes = [], []
        for batch in self.batches(images):
            with torch.no_grad(), seeded(self.seed, batch.device):
                plain = wide(self.logits(batch))
                predicted = plain.argmax(dim=1, keepdim=True)
                noisy = torch.zeros_like(plain)
                for _ in range(DRAWS):
                    shaken = (batch + NOISE * torch.randn_like(batch)).clamp(0, 1)
                    noisy += wide(self.logits(shaken)) / DRAWS
            odds = [z - z.gather(1, predicted) for z in (noisy, plain)]
            rows.append((odds[0] - odds[1]).cpu())
            classes.append(predicted[:, 0].cpu())
        return torch.cat(rows), torch.cat(classes)
