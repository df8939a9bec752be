"""The odds test: how log-odds move under noise, compared with clean images."""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.environment.randomness import seeded
from flatguard.geometry.precision import wide

_DRAWS = 16
_NOISE = 0.02
"""Standard deviation of the Gaussian noise, for images in [0, 1]."""

_MIN_DEVIATION = 1e-6


class Odds(Baseline):
    r"""$\max_{z \ne y} (\bar g_{yz}(x) - \mu_{yz}) / \sigma_{yz}$ with y the predicted class.

    $\bar g_{yz}(x) = \mathbb{E}_\eta [f_z(x + \eta) - f_y(x + \eta)] - [f_z(x) - f_y(x)]$; μ and σ
    are its mean and deviation over clean images predicted as y.

    Source: Roth, Kilcher & Hofmann (2019). Cost: 17 forward passes.
    """

    name = "odds"

    def fit(self, training: TrainingImages) -> None:
        """Means and deviations by predicted class; a class below two images takes those of all."""
        moved, predicted = self._moved(training.images)
        classes = moved.shape[1]
        self._mean = moved.mean(dim=0).repeat(classes, 1)
        self._deviation = moved.std(dim=0).repeat(classes, 1)
        for y in range(classes):
            here = moved[predicted == y]
            if len(here) >= 2:
                self._mean[y], self._deviation[y] = here.mean(dim=0), here.std(dim=0)
        self._deviation.clamp_min_(_MIN_DEVIATION)

    def score(self, images: Tensor) -> Tensor:
        """`(n,)`, in standard deviations."""
        moved, predicted = self._moved(images)
        scores = (moved - self._mean[predicted]) / self._deviation[predicted]
        return scores.scatter(1, predicted[:, None], float("-inf")).amax(dim=1)

    def _moved(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How far each class's log-odds against the predicted class move, `(n, k)`; the class."""
        rows, classes = [], []
        for batch in self.batches(images):
            with torch.no_grad(), seeded(self.seed, batch.device):
                plain = wide(self.logits(batch))
                predicted = plain.argmax(dim=1, keepdim=True)
                noisy = torch.zeros_like(plain)
                for _ in range(_DRAWS):
                    shaken = (batch + _NOISE * torch.randn_like(batch)).clamp(0, 1)
                    noisy += wide(self.logits(shaken)) / _DRAWS
            odds = [z - z.gather(1, predicted) for z in (noisy, plain)]
            rows.append((odds[0] - odds[1]).cpu())
            classes.append(predicted[:, 0].cpu())
        return torch.cat(rows), torch.cat(classes)
