"""The samples that an attack has not fooled yet; only they go forward.

A library's attack sees a model of its whole batch. Rows of samples that are fooled are answered
from memory, so a sample costs nothing from the call after the one that fooled it. A call on such
rows alone ends the attack.

Logits are divided by the gap of the sample's clean image. That is a twin: it decides as the model
does, and its cross-entropy is not saturated. The gradient may come from another twin (`follow`).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flatguard.attacks.monitor import Monitor
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import within
from flatguard.twins.outputs import Twin, plain
from flatguard.twins.repairs import FITTED_ON, PASSES, Repair, repairs

_JUDGED_AFTER = 6
"""Calls after which it is seen whether an attack on a sample leads anywhere."""

_PER_TRY = 2.0
"""How much farther a class counts as for each time that it was tried, in clean gaps."""


@dataclass(frozen=True)
class Images:
    """Clean images and their labels.

    Attributes:
        images: `(n, channels, height, width)`.
        labels: `(n,)`.
    """

    images: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor) -> Images:
        return Images(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.images)


class NothingLeftError(Exception):
    """Ends a library's attack: it has no sample left that is worth a call."""


class Survivors(nn.Module):
    """A model that stops to ask about a sample once it is fooled, and keeps the best of each.

    Args:
        model: to logits `(n, k)`.
        clean: the batch.
        budget: points outside it fool nobody.
        monitor: receives which images each call is on.

    Attributes:
        model: the model itself.
        fooled: `(n,)`.
        scale: the size of the clean gap to the nearest class, `(n,)`.
        gaps: `(n, k)`, the smallest that was seen of the logit of the label less that of each
            class; infinite for the label itself.
        points: `(n, ...)`, where the gap to the nearest class was smallest.
        passes: rows that went forward so far, and rows whose gradient was asked for.
    """

    def __init__(self, model: nn.Module, clean: Images, budget: Budget, monitor: Monitor):
        super().__init__()
        self.model, self._clean, self._budget, self._monitor = model, clean, budget, monitor
        self._twin = plain(model)
        self.training = model.training
        with monitor.calls_on(clean.images), torch.no_grad():
            self.gaps = self._gaps_of(model(clean.images.clone()), clean.labels)
        nearest = self._nearest()
        self.fooled = nearest < 0
        self.scale = nearest.abs().clamp_min(torch.finfo(self.gaps.dtype).tiny)
        self._shown = self.scale
        self.points = clean.images.clone()
        self._tried, self.passes = torch.zeros_like(self.gaps), len(clean)
        every = torch.arange(len(clean), device=clean.images.device)
        self._last_rows, self._last_clean = every, clean.images
        self.begin(every)

    def follow(self, twin: Twin) -> None:
        """From now on attacks follow this twin's gradient; no class counts as tried yet.

        Its logits are shown divided by their own clean gap.
        """
        rows, self._twin = self.surviving, twin
        self.passes += len(rows)
        part = self._clean[rows]
        with self._monitor.calls_on(part.images), torch.no_grad():
            gaps = self._gaps_of(twin(part.images.clone()).loss, part.labels)
        self._shown, self._tried = self.scale.clone(), torch.zeros_like(self._tried)
        tiny = torch.finfo(self._shown.dtype).tiny
        self._shown[rows] = gaps.amin(dim=1).abs().clamp_min(tiny).to(self._shown)

    def repairs(self, rows: Tensor) -> list[Repair]:
        """The repaired twins of the model, found on these samples."""
        images = self._clean.images[rows]
        self.passes += (PASSES + 2) * min(FITTED_ON, len(rows))
        with self._monitor.calls_on(images[:FITTED_ON]):
            return repairs(self.model, images)

    def aside(self) -> AbstractContextManager[None]:
        """Calls in which a part of the model is replaced: they are only counted."""
        return self._monitor.aside()

    def begin(self, rows: Tensor, aims: Tensor | None = None, slack: float = math.inf) -> None:
        """An attack begins on these samples, in this order, towards these classes or any.

        A sample leaves the attack where `_JUDGED_AFTER` calls have not brought it to that class,
        up to this share of the clean gap more than its smallest gap so far.
        """
        self._rows, self._aims, self._calls = rows, aims, 0
        self._limit = self.left[rows] + slack
        self._now = torch.full_like(rows, torch.inf, dtype=self.gaps.dtype)
        self._aimed = self._now.clone()
        self._given_up = torch.zeros_like(rows, dtype=torch.bool)

    @property
    def left(self) -> Tensor:
        """What each sample has left of its clean gap; below 0 it is fooled."""
        return self._nearest() / self.scale

    @property
    def surviving(self) -> Tensor:
        """The samples that are not fooled, in ascending order."""
        return (~self.fooled).nonzero()[:, 0]

    def unsteady(self, rows: Tensor) -> float:
        """How far the gaps of clean images move in a second call, as a share of the first gap.

        0 for most models, up to rounding. A randomised model, and one whose answers depend on the
        other images of a batch, give more.
        """
        part = self._clean[rows]
        self.passes += len(rows)
        with self._monitor.calls_on(part.images), torch.no_grad():
            again = self._gaps_of(self.model(part.images.clone()), part.labels)
        moved = (again.amin(dim=1) - self._nearest()[rows]).abs() / self.scale[rows]
        return float(moved.max()) if len(rows) else 0.0

    def margins(self, rows: Tensor, images: Tensor, twin: Twin | None = None) -> Tensor:
        """The gap to the nearest class at these images of some samples, `(m,)`, in float64.

        A twin decides as the model does; what it says shows that it runs without a gradient.
        """
        self.passes += len(rows)
        with self._monitor.calls_on(self._clean.images[rows]), torch.no_grad():
            logits = (twin or plain(self.model))(images).decides
        return self._gaps_of(logits.double(), self._clean.labels[rows]).amin(dim=1)

    def margin_and_slope(
        self, rows: Tensor, images: Tensor, twin: Twin | None = None
    ) -> tuple[Tensor, Tensor]:
        """`margins`, and their gradients, or those of a twin's logits; 0 where there is none."""
        self.passes += 2 * len(rows)
        x = images.detach().clone().requires_grad_(True)
        with self._monitor.calls_on(self._clean.images[rows]), torch.enable_grad():
            outputs = (twin or plain(self.model))(x)
        margin, leads = (
            self._gaps_of(logits.double(), self._clean.labels[rows]).amin(dim=1)
            for logits in (outputs.decides, outputs.loss)
        )
        slope = None
        if leads.requires_grad:
            (slope,) = torch.autograd.grad(leads.sum(), x, allow_unused=True)
        return margin.detach(), torch.zeros_like(images) if slope is None else slope.nan_to_num()

    def next_classes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The class to try next for each of these samples, and whether it is its first try.

        It is the one with the smallest gap, where each try before adds `_PER_TRY` clean gaps: a
        class that was aimed at looks nearer than one that was not.
        """
        tried = self._tried[rows]
        found = (self.gaps[rows] / self.scale[rows, None] + _PER_TRY * tried).argmin(dim=1)
        self._tried[rows, found] += 1
        return found, tried.gather(1, found[:, None])[:, 0] == 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the attack's rows; those of samples that are fooled are constants.

        Raises:
            NothingLeftError: all of them are fooled or given up, so the attack may end.
        """
        places = self._places_of(images)
        rows = self._rows[places]
        asked = (~(self.fooled[rows] | self._given_up[places])).nonzero()[:, 0]
        if not len(asked):
            raise NothingLeftError
        answer = self._remembered(images, rows)
        self.passes += len(asked) * (2 if images.requires_grad else 1)
        with self._monitor.calls_on(self._clean_of(rows[asked])):
            outputs = self._twin(images[asked])
        self._look_at(rows[asked], images[asked].detach(), outputs.decides.detach())
        shown = outputs.loss / self._shown[rows[asked], None]
        answer = answer.index_copy(0, asked, shown.to(answer.dtype))
        self._judge(places, answer.detach())
        return answer

    def _clean_of(self, rows: Tensor) -> Tensor:
        """The clean images of these samples; the same tensor as in the last call for the same."""
        if not torch.equal(rows, self._last_rows):
            self._last_rows, self._last_clean = rows, self._clean.images[rows]
        return self._last_clean

    def _places_of(self, images: Tensor) -> Tensor:
        """The places among the attack's rows of a call: all, or, as Square calls, those left.

        Square keeps the rows whose smallest gap in its answers so far is above 0: not a tie.
        """
        if len(images) == len(self._rows):
            return torch.arange(len(self._rows), device=self._rows.device)
        left = (self._now > 0).nonzero()[:, 0]
        if len(images) != len(left):
            raise AttackError(
                f"expected a call on {len(self._rows)} or on {len(left)} images, got {len(images)}"
            )
        return left

    def _judge(self, places: Tensor, answer: Tensor) -> None:
        """Note how near the attempt came, in the answers that the attack sees."""
        gaps = self._gaps_of(answer, self._clean.labels[self._rows[places]])
        nearest = gaps.amin(dim=1)
        self._now[places] = self._now[places].minimum(nearest)
        aimed = nearest if self._aims is None else gaps.gather(1, self._aims[places, None])[:, 0]
        self._aimed[places] = self._aimed[places].minimum(aimed)
        self._calls += 1
        if self._calls >= _JUDGED_AFTER:
            self._given_up |= self._aimed > self._limit

    def _remembered(self, images: Tensor, rows: Tensor) -> Tensor:
        """A wrong answer for each row, connected to the images by a gradient of 0."""
        gaps = self.gaps[rows] / self.scale[rows, None]
        return torch.where(gaps.isinf(), 0.0, -gaps) + 0.0 * images.flatten(1)[:, :1]

    def _gaps_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        own = logits.gather(1, labels[:, None])
        return (own - logits).scatter(1, labels[:, None], torch.inf)

    def _nearest(self) -> Tensor:
        return self.gaps.amin(dim=1)

    def _look_at(self, rows: Tensor, images: Tensor, logits: Tensor) -> None:
        """Keep what came nearer."""
        inside = within(images, self._clean.images[rows], self._budget)
        gaps = self._gaps_of(logits, self._clean.labels[rows])
        gaps = torch.where(
            (inside & gaps.isnan().logical_not().all(dim=1))[:, None], gaps, torch.inf
        )
        nearest = gaps.amin(dim=1)
        nearer = nearest < self.gaps[rows].amin(dim=1)
        self.points[rows[nearer]] = images[nearer]
        self.gaps[rows] = self.gaps[rows].minimum(gaps)
        self.fooled[rows] = self.gaps[rows].amin(dim=1) < 0
