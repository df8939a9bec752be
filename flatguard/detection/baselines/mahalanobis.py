"""Mahalanobis distance of the features to the nearest class, by pytorch-ood."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.detection.scores import forward_pass
from flatguard.environment.requirements import needed


class Mahalanobis(Baseline):
    """Half the squared distance of φ to the nearest class mean, in the shared covariance.

    Source: Lee et al. (2018), by pytorch-ood. Cost: one forward pass.
    """

    name = "mahalanobis"

    def fit(self, training: TrainingImages) -> None:
        """Means of the classes that occur, and their shared covariance."""
        with needed("pytorch-ood", "detection", "the Mahalanobis baseline"):
            from pytorch_ood.detector import Mahalanobis as Fitted
        _, classes = np.unique(training.labels.numpy(), return_inverse=True)
        self._fitted: Any = Fitted(None)
        self._fitted.fit_features(self._features(training.images), torch.from_numpy(classes))

    def score(self, images: Tensor) -> Tensor:
        """`(n,)`, not negative."""
        found: Tensor = self._fitted.predict_features(self._features(images))
        return found.double()

    def _features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [forward_pass(self.target, batch).features.cpu() for batch in self.batches(images)]
            )
