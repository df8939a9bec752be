"""The binarisation test: an attack must find an adversarial example that is known to exist.

R. Zimmermann, W. Brendel, F. Tramèr and N. Carlini, *Increasing Confidence in Adversarial
Robustness Evaluations*, NeurIPS 2022. For each image, the final linear layer is replaced by one
with two classes. It is fitted on the features: class 0 on points within `ETA` of the radius, the
image among them, and class 1 on a corner of the ball. So the ball holds an adversarial example,
and the audited attack has to find one, for `PASSES` of the images. The two logits get the range of
those that they replace, and what the model does to its logits it does to them.

Their test has 512 images and 999 inner points; this one has fewer. A model whose last linear layer
is not certain, or that cannot go on with two classes, is binarised on its outputs. An image whose
points no readout separates is left out; below `FEWEST` images there is no answer. Where PGD raises
because there is no gradient, it finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.masking_zoo.judges import STEPS, Answer, Audited, Judge

SAMPLES = 20
INNER = 40
ETA = 0.95
PASSES = 0.95
FEWEST = 5


@dataclass(frozen=True)
class Points:
    """Of one image: its inner points, the image first, and the corner, last."""

    images: Tensor

    @property
    def labels(self) -> np.ndarray:
        """1 for the corner."""
        found = np.zeros(len(self.images))
        found[-1] = 1.0
        return found


@dataclass(frozen=True)
class Readout:
    """One readout with two classes an image: logits `φ·weight + bias` and their range.

    Attributes:
        weight: `(n, 2, d)`.
        bias: `(n, 2)`.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Two logits a row; row i has readout i."""
        return torch.einsum("nkd,nd->nk", self.weight, features) + self.bias


class Binarised(nn.Module):
    """The model with a readout in place of its head, or behind its outputs."""

    def __init__(self, model: nn.Module, head: nn.Linear | None, readout: Readout):
        super().__init__()
        self.model, self.head, self.readout = model, head, readout

    def forward(self, x: Tensor) -> Tensor:
        """Two logits; the rows are the images that the readouts were fitted for."""
        if self.head is None:
            return self.readout(self.model(x).flatten(1))
        handle = self.head.register_forward_hook(lambda m, args, out: self.readout(args[0]))
        try:
            logits: Tensor = self.model(x)
        finally:
            handle.remove()
        return logits


def ask(audited: Audited) -> Answer:
    """The attack's success on binarised models; an alarm where it misses planted examples."""
    images, _ = audited.right(SAMPLES)
    if not len(images):
        return Answer.none("no image is classified right")
    head = head_of(audited.model, images)
    points = [_points(image, audited.eps) for image in images]
    if head is not None and (found := _tested(audited, images, points, head)) is not None:
        return found
    found = _tested(audited, images, points, None)
    return Answer.none("no readout separates the points") if found is None else found


def _tested(
    audited: Audited, images: Tensor, points: list[Points], head: nn.Linear | None
) -> Answer | None:
    """None where the model cannot go on with two classes, or too few images are set up."""
    readout = _fitted(audited.model, head, points)
    model = Binarised(audited.model, head, readout).eval()
    corners = torch.stack([p.images[-1] for p in points])
    try:
        with torch.no_grad():
            inside, outside = model(images), model(corners)
    except (RuntimeError, IndexError):
        return None
    if inside.shape != (len(images), 2):
        return None
    ready = (inside.argmax(dim=1) == 0) & (outside.argmax(dim=1) == 1)
    if int(ready.sum()) < FEWEST:
        return None
    success = int((_attacked(model, images, audited.eps) & ready).sum()) / int(ready.sum())
    named = ["misses planted examples"] if success < PASSES else []
    values = {"success": success, "images": float(ready.sum()), "features": float(head is not None)}
    note = "" if head is not None else "on the outputs: no single head goes on with two classes"
    return Answer(bool(named), named, values, note)


def _attacked(model: Binarised, images: Tensor, eps: float) -> Tensor:
    """Which images the audited attack turns into class 1."""
    attack = torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=STEPS, random_start=False)
    try:
        found = attack(images, torch.zeros(len(images), dtype=torch.long)).detach()
    except RuntimeError:  # no gradient
        return torch.zeros(len(images), dtype=torch.bool)
    with torch.no_grad():
        fooled: Tensor = model(found).argmax(dim=1) == 1
    return fooled


def _points(image: Tensor, eps: float) -> Points:
    noise = ETA * eps * (2 * torch.rand(INNER - 1, *image.shape) - 1)
    corner = eps * (2.0 * torch.randint(0, 2, (1, *image.shape)) - 1)
    return Points(torch.cat([image[None], image + noise, image + corner]).clamp(0, 1))


def head_of(model: nn.Module, images: Tensor) -> nn.Linear | None:
    """The one linear layer that gives as many outputs as the model and runs once in a pass."""
    runs: list[nn.Linear] = []
    linear = [part for part in model.modules() if isinstance(part, nn.Linear)]
    handles = [part.register_forward_hook(lambda m, args, out: runs.append(m)) for part in linear]
    try:
        with torch.no_grad():
            classes = model(images[:1]).shape[1]
    finally:
        for handle in handles:
            handle.remove()
    found = [part for part in runs if part.out_features == classes]
    return found[0] if len(found) == 1 else None


@contextmanager
def _seen(head: nn.Linear | None) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What the head is given and gives, for every call."""
    seen: list[tuple[Tensor, Tensor]] = []
    if head is None:
        yield seen
        return
    handle = head.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    try:
        yield seen
    finally:
        handle.remove()


def _fitted(model: nn.Module, head: nn.Linear | None, points: list[Points]) -> Readout:
    """Logistic regression on each image's features, with the range of the logits it replaces."""
    weights, biases = [], []
    for each in points:
        with _seen(head) as seen, torch.no_grad():
            outputs = model(each.images).flatten(1)
        features, logits = seen[0] if seen else (outputs, outputs)
        weight, bias = _separated(features.double(), each.labels)
        binary = features.double() @ weight.T + bias
        spread = float(binary.max() - binary.min())
        wanted = float(logits.max() - logits.min())
        factor = wanted / spread if spread > 0 and wanted > 0 else 1.0
        weights.append(factor * weight)
        biases.append(factor * bias + float(logits.min()) - factor * float(binary.min()))
    return Readout(torch.stack(weights).float(), torch.stack(biases).float())


def _separated(features: Tensor, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Two opposite rows of weights and their biases."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = features.mean(dim=0), features.std().clamp(min=1e-12)
    fit = LogisticRegression(C=1e6, max_iter=1000)
    fit.fit(((features - centre) / scale).nan_to_num().numpy(), labels)
    row = torch.from_numpy(fit.coef_[0]) / scale
    bias = float(fit.intercept_[0]) - float(row @ centre)
    return torch.stack([-row, row]), torch.tensor([-bias, bias], dtype=torch.float64)


JUDGE = Judge("binarisation test", ask, {"misses planted examples": frozenset()},
              "Zimmermann et al. 2022", SAMPLES)  # fmt: skip
