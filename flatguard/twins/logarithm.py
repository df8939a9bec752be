"""A twin of a target that returns probabilities: their logarithm is differentiated.

log p of a softmax is its logits less a shift, so a loss of it has the gradient of a loss of the
logits, however little the probabilities themselves move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flatguard.twins.outputs import Outputs

_ROUNDING = 1e-3


class LogarithmTwin:
    """Decides as the target; its loss is of log p, with a spread of 1 on each image.

    Args:
        model: returns probabilities, `(n, k)`.
    """

    def __init__(self, model: nn.Module):
        self._model = model

    def __call__(self, images: Tensor) -> Outputs:
        """The target's probabilities, and their logarithms for the loss."""
        with torch.enable_grad() if images.requires_grad else torch.no_grad():
            p: Tensor = self._model(images)
            log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
            spread = log_p.detach().std(dim=1, keepdim=True).clamp_min(1e-12)
        return Outputs(p, log_p / spread, scale_free=True)


def are_probabilities(output: Tensor) -> bool:
    """Whether every row, `(n, k)`, has no negative value and the sum 1."""
    rows = output.detach().double()
    near = (rows.sum(dim=1) - 1.0).abs() < _ROUNDING
    return bool((rows >= 0).all()) and bool(near.all())
