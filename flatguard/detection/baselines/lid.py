"""Local intrinsic dimensionality of the activations, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.environment.requirements import needed
from flatguard.errors import UsageError

_NEIGHBOURS = 20
_REFERENCE = 100
"""The number of clean images among which neighbours are searched: the paper's minibatch."""


class Lid(Baseline):
    r"""A logistic regression on $-\bigl(\frac1k \sum_{i \le k} \log \frac{r_i}{r_k}\bigr)^{-1}$.

    r₁ .. r_k are the distances of a layer's activation to its k nearest among those of clean
    images; there is one such number for each convolution and linear layer. The regression separates
    adversarial examples from clean and noisy images.

    Source: Ma et al. (2018). Cost: one forward pass, and distances to 100 images in each
    layer.
    """

    name = "lid"
    learns_attacks = True

    def fit(self, training: TrainingImages) -> None:
        """Store the reference's activations and fit the regression."""
        with needed("scikit-learn", "detection", "the LID baseline"):
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        if len(training.images) <= _NEIGHBOURS:
            raise UsageError(
                f"LID looks for {_NEIGHBOURS} neighbours, so it needs more than {_NEIGHBOURS} "
                f"images to learn from, got {len(training.images)}; see --n-fit"
            )
        own, rest = training.images[:_REFERENCE], training.images[_REFERENCE:]
        self._reference = self._activations(own)
        clean = torch.cat([self._dimensions(own, own_reference=True), self._dimensions(rest)])
        negative = torch.cat([clean, self._dimensions(training.noisy)])
        positive = self._dimensions(training.adversarial)
        rows = torch.cat([negative, positive]).numpy()
        kinds = [0] * len(negative) + [1] * len(positive)
        self._model: Any = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced")
        ).fit(rows, kinds)

    def score(self, images: Tensor) -> Tensor:
        """`(n,)`, the regression's log-odds."""
        rows = self._dimensions(images).numpy()
        return torch.from_numpy(self._model.decision_function(rows)).double()

    def _dimensions(self, images: Tensor, own_reference: bool = False) -> Tensor:
        """`(n, layers)`; an image of the reference is not its own neighbour."""
        if not len(images):
            return torch.empty(0, len(self._reference), dtype=torch.float64)
        rows = []
        for batch in self.batches(images):
            with torch.no_grad(), self._record() as seen:
                self.logits(batch)
            found = [
                lid(torch.cdist(seen[name], kept), _NEIGHBOURS, skip=int(own_reference))
                for name, kept in self._reference.items()
            ]
            rows.append(torch.stack(found, dim=1).cpu())
        return torch.cat(rows)

    def _activations(self, images: Tensor) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for batch in self.batches(images):
            with torch.no_grad(), self._record() as seen:
                self.logits(batch)
            for name, values in seen.items():
                parts.setdefault(name, []).append(values)
        return {name: torch.cat(values) for name, values in parts.items()}

    @contextmanager
    def _record(self) -> Iterator[dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}

        def remember(name: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                seen[name] = output.flatten(1)

            return hook

        layers = [
            (name, module)
            for name, module in self.target.model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
        ]
        handles = [module.register_forward_hook(remember(name)) for name, module in layers]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def lid(distances: Tensor, neighbours: int, skip: int = 0) -> Tensor:
    r"""The maximum-likelihood estimate of Amsaleg et al. (2015) from each row of distances.

    Args:
        distances: `(n, m)`, to the reference.
        neighbours: k.
        skip: how many of the nearest to leave out: 1 where a row is part of the reference.

    Returns:
        `(n,)` float64; k nearest at equal distances have no estimate and give k / rounding.
    """
    near = distances.double().sort(dim=1).values[:, skip : skip + neighbours].clamp_min(1e-12)
    mean = (near / near[:, -1:]).log().mean(dim=1)
    return -1.0 / mean.clamp_max(-1e-12)
