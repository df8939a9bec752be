"""Sources of a search's direction: the gradient of a loss of a twin, or an estimate of it.

A source looks at the current images and returns the direction in which the loss rises, and which
images already fool the twin. The temperature of each sample is fixed: its clean logits, divided by
it, have a gap of `TARGET_GAP` between the true class and the next, so softmax is not saturated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatguard.checks.context import Meter, Rows
from flatguard.environment.randomness import seeded
from flatguard.twins.outputs import Outputs, Twin


@dataclass(frozen=True)
class View:
    """What a source computes at some images.

    Attributes:
        gradient: `(n, ...)`, in float32; rows without a gradient are 0.
        fooled: `(n,)`, whether the twin's decision is wrong.
        margin: `(n,)`, its logit margin over the temperature; lower is nearer to the boundary.
    """

    gradient: Tensor
    fooled: Tensor
    margin: Tensor


Loss = Callable[[Outputs, Rows], Tensor]
GradientSource = Callable[[Tensor, Rows], View]


_SCALE_FREE_TEMPERATURE = 0.5


def cross_entropy(outputs: Outputs, rows: Rows) -> Tensor:
    """The loss of the audited attacks, of the logits as they are."""
    return F.cross_entropy(outputs.loss, rows.labels, reduction="none")


def tempered(outputs: Outputs, rows: Rows) -> Tensor:
    """Cross-entropy of the logits divided by each sample's temperature."""
    if outputs.scale_free:
        cooled = outputs.loss.double() / _SCALE_FREE_TEMPERATURE
    else:
        cooled = outputs.loss.double() / rows.temperature[:, None]
    return F.cross_entropy(cooled, rows.labels, reduction="none")


def margin_loss(outputs: Outputs, rows: Rows) -> Tensor:
    """max over the other classes of z_j - z_y. Its direction is the same at every scale."""
    return -margin_of_loss(outputs.loss, rows)


def margin_of_loss(logits: Tensor, rows: Rows) -> Tensor:
    """z_y - max over the other classes of z_j, `(n,)`."""
    own = logits.gather(1, rows.labels[:, None])[:, 0]
    others = logits.scatter(1, rows.labels[:, None], float("-inf"))
    return own - others.amax(dim=1)


def frozen(model: nn.Module, seed: int) -> Twin:
    """The target with its randomness frozen: every call draws what this seed gives.

    A smooth, deterministic model that an attack can follow; what fools it has to be shown to the
    target many times. Generators of the model's own go on.
    """

    def twin(images: Tensor) -> Outputs:
        with seeded(seed, images.device):
            logits = model(images)
        return Outputs(logits, logits)

    return twin


class Gradient:
    """A source that uses automatic differentiation.

    Args:
        twin: the model that is differentiated.
        loss: a loss of its logits.
        meter: counts the rows that go forward.
        draws: forward passes that the gradient is averaged over: expectation over
            transformation, for a randomised target.
        noise: standard deviation of Gaussian noise that is added in each draw; 0 is no noise.
    """

    def __init__(self, twin: Twin, loss: Loss, meter: Meter, *, draws: int = 1, noise: float = 0.0):
        self._twin, self._loss, self._meter = twin, loss, meter
        self._draws, self._noise = draws, noise

    def __call__(self, images: Tensor, rows: Rows) -> View:
        """Cost: `draws` forward and backward passes, and one forward more where there is noise."""
        total = torch.zeros_like(images)
        margins, wrong = [], []
        for _ in range(self._draws):
            x = images.detach().clone()
            if self._noise:
                x = x + self._noise * torch.randn_like(x)
            x.requires_grad_(True)
            outputs = self._look(x)
            gradient = gradient_of(self._loss(outputs, rows).sum(), x)
            total += torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            if not self._noise:
                margins.append(margin_of(outputs.decides, rows))
                wrong.append(outputs.decides.argmax(dim=1) != rows.labels)
        if self._noise:
            with torch.no_grad():
                decides = self._look(images).decides
            margins, wrong = [margin_of(decides, rows)], [decides.argmax(dim=1) != rows.labels]
        fooled = torch.stack(wrong).double().mean(dim=0) > 0.5
        return View(total, fooled, torch.stack(margins).mean(dim=0))

    def _look(self, x: Tensor) -> Outputs:
        self._meter.add(len(x))
        with torch.enable_grad() if x.requires_grad else torch.no_grad():
            return self._twin(x)


class Estimated:
    """A source that uses simultaneous perturbation (SPSA; Spall 1992, Uesato et al. 2018).

    The mean over `pairs` random sign vectors v of [m(x + σv) - m(x - σv)] v / 2σ, with m the
    negative margin of the target itself. It needs no gradient.
    """

    def __init__(self, model: nn.Module, meter: Meter, *, pairs: int, spread: float):
        self._model, self._meter = model, meter
        self._pairs, self._spread = pairs, spread

    def __call__(self, images: Tensor, rows: Rows) -> View:
        """Cost: 2 · pairs + 1 forward passes."""
        total = torch.zeros_like(images)
        shape = (-1, *[1] * (images.ndim - 1))
        with torch.no_grad():
            for _ in range(self._pairs):
                signs = torch.randint_like(images, 2) * 2.0 - 1.0
                higher = self._rise(images + self._spread * signs, rows)
                lower = self._rise(images - self._spread * signs, rows)
                total += (higher - lower).view(shape).to(images.dtype) * signs
            logits = self._forward(images)
        return View(total, logits.argmax(dim=1) != rows.labels, margin_of(logits, rows))

    def _rise(self, images: Tensor, rows: Rows) -> Tensor:
        return -margin_of(self._forward(images.clamp(0, 1)), rows)

    def _forward(self, images: Tensor) -> Tensor:
        self._meter.add(len(images))
        logits: Tensor = self._model(images)
        return logits


def gradient_of(loss: Tensor, x: Tensor) -> Tensor:
    """The gradient of a loss in x; zeros where the loss does not depend on x."""
    if not loss.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(loss, x, allow_unused=True)
    return torch.zeros_like(x) if found is None else found.detach()


def margin_of(logits: Tensor, rows: Rows) -> Tensor:
    """The logit margin over each sample's temperature, `(n,)` float64; +inf where it is NaN."""
    found = margin_of_loss(logits.detach().double(), rows) / rows.temperature
    return torch.nan_to_num(found, nan=float("inf"))
