"""The path of an attack: logits and features at every step, the clean image first.

The attacks of the paper's figures begin at the clean image and call the model on the whole batch
at every step, so row i of every call is sample i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.data.dataset import Batch
from flatguard.errors import AttackError
from flatguard.geometry.basin import Visited
from flatguard.geometry.decision import cross_entropy
from flatguard.geometry.distance import within
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p
from flatguard.studies.study import Subject
from flatguard.targets.head import FinalMap, inputs_of


@dataclass(frozen=True)
class Path:
    """m points of each of n samples, on the CPU; point 0 is the clean image.

    Attributes:
        logits: `(m, n, k)` float32.
        features: `(m, n, d)` float32, the head's inputs.
        linf, l2: `(m, n)` float64, distances from the clean image.
        labels: `(n,)`.
        inside: `(n,)`, whether the returned image is within budget and box.
    """

    logits: Tensor
    features: Tensor
    linf: Tensor
    l2: Tensor
    labels: Tensor
    inside: Tensor

    def loss(self, scale: float = 1.0) -> Tensor:
        """Cross-entropy of the logits times `scale`, `(m, n)` float64."""
        m, n, k = self.logits.shape
        rows = self.logits.double().reshape(m * n, k) * scale
        return cross_entropy(rows, self.labels.repeat(m)).view(m, n)

    def rise(self, scale: float = 1.0) -> Tensor:
        """The loss minus that of the clean image, `(m, n)`."""
        loss = self.loss(scale)
        return loss - loss[:1]

    def log_kappa(self, head: FinalMap) -> Tensor:
        """log κ of the head at each point, `(m, n)` float64."""
        m, n, k = self.logits.shape
        spread = log_sum_p_one_minus_p(self.logits.reshape(m * n, k))
        norm = feature_norm(self.features.reshape(m * n, self.features.shape[2]))
        log_scale = 2.0 * float(np.log(head.scale)) + head.log_weight_norm_squared()
        return (spread + 2.0 * norm.log() + log_scale).view(m, n)

    def wrong(self) -> Tensor:
        """Whether the prediction is not the label, `(m, n)`."""
        wrong: Tensor = self.logits.argmax(dim=2) != self.labels
        return wrong

    def correct(self) -> Tensor:
        """Which clean images are classified correctly, `(n,)`."""
        return ~self.wrong()[0]

    def moved(self) -> Tensor:
        """d: how far the features are from the clean ones, `(m, n)` float64."""
        moved: Tensor = (self.features - self.features[:1]).double().norm(dim=2)
        return moved

    def visited(self, scale: float = 1.0, norm: str = "L2") -> Visited:
        """The points as `geometry.basin` takes them."""
        distance = self.linf if norm == "Linf" else self.l2
        return Visited.of_paths(
            distance.numpy(), self.rise(scale).numpy(), self.wrong().numpy()
        )  # fmt: skip

    def __getitem__(self, rows: Tensor) -> Path:
        """Some of the samples."""
        return Path(*(v[rows] if v.ndim == 1 else v[:, rows] for v in self._columns()))

    @classmethod
    def joined(cls, parts: Sequence[Path]) -> Path:
        """Blocks of samples, one after the other."""
        columns = zip(*(part._columns() for part in parts), strict=True)
        return cls(*(torch.cat(values, dim=min(1, values[0].ndim - 1)) for values in columns))

    def _columns(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


def walk_all(subject: Subject) -> Path:
    """The study's attack on all samples of its subject.

    Raises:
        UsageError: the model has no proven head.
        AttackError: from the attack's library, or the attack does not begin at the clean image.
    """
    head, context = subject.head(), subject.context
    subject.progress.stage(f"attack {context.attack.info.name}", subject.count)
    parts = []
    for start, batch in subject.blocks():
        parts.append(walk(subject, batch, head, start).path)
        subject.progress.advanced(len(batch))
    return Path.joined(parts)


@dataclass(frozen=True)
class Walk:
    """A path, and the images that the attack returned, `(n, ...)` on the device."""

    path: Path
    ends: Tensor


def walk(subject: Subject, batch: Batch, head: FinalMap, start: int = 0) -> Walk:
    """The study's attack on one batch, whose first sample has the number `start`."""
    model, context = subject.model, subject.context
    watch = _Watch(batch.images)
    handle = model.register_forward_hook(watch.saw_call)
    try:
        with inputs_of(head) as features:
            seed = subject.seed("attack", start)
            found = context.attack.perturb(model, batch.images, batch.labels, seed).images
            with torch.no_grad():
                model(found)
    finally:
        handle.remove()
    if float(watch.linf[0].max()) > 0:
        raise AttackError(f"{context.attack.info.name} does not begin at the clean image")
    path = Path(
        torch.stack(watch.logits),
        torch.stack([one.float().cpu() for one in features]),
        torch.stack(watch.linf).double(),
        torch.stack(watch.l2).double(),
        batch.labels.cpu(),
        within(found.cpu(), batch.images.cpu(), context.attack.budget),
    )
    return Walk(path, found)


class _Watch:
    """Keeps the logits and distances of each call on the whole batch."""

    def __init__(self, images: Tensor):
        self._images = images
        self.logits: list[Tensor] = []
        self.linf: list[Tensor] = []
        self.l2: list[Tensor] = []

    def saw_call(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        difference = (inputs[0].detach() - self._images).flatten(1).double()
        self.linf.append(difference.abs().amax(dim=1).cpu())
        self.l2.append(difference.norm(dim=1).cpu())
        self.logits.append(output.detach().float().cpu())
