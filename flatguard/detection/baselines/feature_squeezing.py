"""Feature squeezing: how far the prediction moves when the image is made coarser."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from torch import Tensor

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.geometry.precision import wide

_LEVELS = 2**5 - 1
SEARCH, PATCH, STRENGTH = 11, 3, 4.0 / 255.0
"""Non-local means 11-3-4: the search window, the patch, and the strength on a scale of 255."""


class FeatureSqueezing(Baseline):
    r"""$\max_s \|p(x) - p(s(x))\|_1$ over the squeezers s.

    Five bits a value, a 2 × 2 median, and non-local means 11-3-4: the joint detector that the
    paper recommends for CIFAR-10 and ImageNet.

    Source: Xu, Evans & Qi (2018). Cost: four forward passes and the filters.
    """

    name = "feature-squeezing"

    def fit(self, training: TrainingImages) -> None:
        """Nothing is fitted."""

    def score(self, images: Tensor) -> Tensor:
        """`(n,)` in [0, 2]."""
        found = []
        for batch in self.batches(images):
            plain = self._probabilities(batch)
            squeezed = (fewer_bits(batch), median(batch), non_local_means(batch))
            moved = [(plain - self._probabilities(x)).abs().sum(dim=1) for x in squeezed]
            found.append(torch.stack(moved).amax(dim=0).cpu())
        return torch.cat(found)

    def _probabilities(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return wide(self.logits(images)).softmax(dim=1)


def fewer_bits(images: Tensor) -> Tensor:
    """Rounded to 32 levels."""
    return (images * _LEVELS).round() / _LEVELS


def median(images: Tensor) -> Tensor:
    """The median of each 2 × 2 window (the upper of the middle two), edges repeated."""
    found = median_filter(images.cpu().numpy(), size=(1, 1, 2, 2), mode="nearest")
    return torch.from_numpy(found).to(images.device)


def non_local_means(images: Tensor) -> Tensor:
    r"""Buades et al. (2005): the mean over a window, weighted by $\exp(-d^2 / h^2)$.

    d² is the mean squared difference of the patches around both pixels, over all channels.
    """
    reach, half = SEARCH // 2, PATCH // 2
    height, width = images.shape[2:]
    mode = "reflect" if min(height, width) > reach else "replicate"
    padded = F.pad(images, (reach,) * 4, mode=mode)
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for down in range(SEARCH):
        for right in range(SEARCH):
            other = padded[:, :, down : down + height, right : right + width]
            apart = (images - other).square().mean(dim=1, keepdim=True)
            d2 = F.avg_pool2d(apart, PATCH, 1, half, count_include_pad=False)
            weight = (-d2 / STRENGTH**2).exp()
            total, weights = total + weight * other, weights + weight
    return total / weights
