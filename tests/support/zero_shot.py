"""Classifiers of digits without a final linear layer, on the features of the trained network."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from support import digits
from torch import Tensor, nn

Kind = Literal["text", "distance"]


class ZeroShot(nn.Module):
    """Compares normalised features with one vector a class.

    Args:
        kind: `text` multiplies them, as CLIP does with embeddings of texts; `distance` takes
            Euclidean distances, which no linear map gives.
        scale: of the logits.
    """

    def __init__(self, kind: Kind, scale: float):
        super().__init__()
        self.kind, self.scale = kind, scale
        self.body = digits.trained()[:-1]  # type: ignore[index]
        images, labels = (values[: digits.TRAINING] for values in digits.digits())
        with torch.no_grad():
            found = F.normalize(self.body(images), dim=1)
        means = torch.stack([found[labels == c].mean(dim=0) for c in range(10)])
        self.register_buffer("classes", F.normalize(means, dim=1))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        features = F.normalize(self.body(x), dim=1)
        if self.kind == "text":
            return self.scale * features @ self.classes.t()
        return -self.scale * torch.cdist(features, self.classes)


def held_out(count: int) -> tuple[Tensor, Tensor]:
    """Images and labels that nothing was trained on."""
    images, labels = digits.digits()
    rows = slice(digits.TRAINING, digits.TRAINING + count)
    return images[rows], labels[rows]
