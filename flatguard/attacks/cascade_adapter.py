"""AutoAttack's attacks in an order that spends passes where a sample may still be fooled.

APGD on the DLR loss from the clean image finds most of what can be found within a few steps. What
is left is tried again, towards the classes that came nearest, from the best point and from random
ones. Only samples that have lost most of their clean gap are tried more than twice. The search ends
once several attempts in a row find nothing; it says so where that proves little.

Nothing here is a new attack: each attempt is one `attack_single_run` of pyautoattack's APGD or
Square, unchanged. What is chosen is the samples, the class, the start and the number of steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flatguard.attacks.attack import WARNINGS, Attack, AttackInfo, check_args, parameters_of
from flatguard.attacks.class_limits import DLR, TARGETED_DLR
from flatguard.attacks.monitor import Monitor, Segment
from flatguard.attacks.survivors import Images, Survivors
from flatguard.environment.requirements import needed
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget, Norm

_NAME = "cascade"
_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
Start = Literal["clean", "best", "random"]

_WORTH: dict[Start, float] = {"clean": math.inf, "best": 0.99, "random": 1.5}
"""A sample leaves an attempt that has not soon come to so many times its smallest gap before."""

_PER_ATTEMPT = 6
"""The search goes on for one more attempt for each so many survivors."""

_UNSTEADY = 0.02
"""A clean gap that moves by this share between two calls is not rounding."""

_LOOKED_AT, _QUERIES, _MORE_QUERIES, _SQUARES = 8, 25, 200, 5
"""Samples and queries of the first black-box look; queries and attempts where it disagrees."""

_STUCK, _STUCK_SHARE = 0.9, 0.1
"""Gradients are doubted where they left that much of the gap on that share of the survivors."""

_DISAGREES = 2
"""The black-box look disagrees if it comes nearer than the gradients on so many samples."""

_log = logging.getLogger(WARNINGS)


@dataclass(frozen=True)
class Schedule:
    """How much is spent. The defaults were chosen on real robust networks.

    Attributes:
        first_steps: of APGD from each clean image.
        next_steps: towards the second-nearest class, from each best point.
        reach: a sample is tried further if at most this share of its clean gap is left.
        least: at least so many of the nearest samples are tried further.
        patience: the search ends after so many attempts in a row that fool nobody, and one more
            for each six survivors.
        most_attempts: it ends after so many attempts in any case.
    """

    first_steps: int = 10
    next_steps: int = 8
    reach: float = 0.25
    least: int = 5
    patience: int = 5
    most_attempts: int = 40


@dataclass(frozen=True)
class Attempt:
    """One run of APGD.

    Attributes:
        steps: of APGD.
        start: where it begins.
        rank: of the class it aims at, by its smallest gap so far; None is any class.
    """

    steps: int
    start: Start
    rank: int | None = None


_CYCLE = (
    Attempt(12, "best", 2), Attempt(16, "random", 0), Attempt(12, "best", 0),
    Attempt(16, "random", 2), Attempt(16, "best", 1), Attempt(12, "random", 1),
    Attempt(16, "best", 2), Attempt(16, "best", 0), Attempt(16, "random", 3),
    Attempt(16, "best", 3), Attempt(12, "random", 0), Attempt(16, "random", 4),
)  # fmt: skip
"""The further attempts, in turn."""


@lru_cache
def infos() -> dict[str, AttackInfo]:
    """The cascade alone."""
    return {_NAME: AttackInfo(_NAME, "cascade", _NORMS, parameters_of(Schedule, set()))}


def build(name: str, budget: Budget, num_classes: int, args: dict[str, Any]) -> Attack:
    """The cascade; `args` override the fields of its `Schedule`."""
    info = infos()[name]
    return _Cascade(info, budget, num_classes, check_args(info, args))


class _Cascade(Attack):
    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, seed: int, monitor: Monitor
    ) -> Tensor:
        clean = Images(images, labels)
        survivors = Survivors(model, clean, self.budget, monitor)
        search = Search(survivors, clean, self.budget, seed, monitor)
        follow(Schedule(**self.args), search)
        return survivors.points

    def effective_args(self) -> dict[str, Any]:
        schedule = Schedule(**self.args)
        return {field.name: getattr(schedule, field.name) for field in fields(schedule)}


@dataclass(frozen=True)
class Search:
    """The attempts on one batch.

    Attributes:
        survivors: what was found so far.
        clean: the batch.
        budget: the norm and radius.
        seed: of the library's objects.
        monitor: receives each attempt as a segment.
    """

    survivors: Survivors
    clean: Images
    budget: Budget
    seed: int
    monitor: Monitor

    def run(self, attempt: Attempt, rows: Tensor) -> int:
        """Attack these samples; returns how many are fooled."""
        found, part = self.survivors, self.clean[rows]
        if not len(rows):
            return 0
        attack = self._apgd(attempt)
        attack.init_hyperparam(part.images)
        if attempt.rank is not None and attack.loss == "dlr-targeted":
            others = found.gaps.shape[1] - 1
            attack.y_target = found.classes(attempt.rank % others)[rows]
        rank = None if attempt.rank is None else attempt.rank + 1
        segment = Segment(f"apgd-{attack.loss}", None, rank, self.budget.eps)
        start = self._start(attempt, rows)
        found.begin(rows, _WORTH[attempt.start])
        with self._on(rows, segment) as before:
            attack.attack_single_run(part.images, part.labels, x_init=start)
        return int(found.fooled.sum()) - before

    def ask(self, queries: int, rows: Tensor) -> int:
        """Attack these samples with Square; returns how many are fooled."""
        if not len(rows):
            return 0
        with needed("pyautoattack", "all", "the cascade"):
            from pyautoattack.square import SquareAttack

        part = self.clean[rows]
        attack = SquareAttack(
            self.survivors, norm=self.budget.norm, n_queries=queries, eps=self.budget.eps,
            seed=self.seed, device=self.clean.images.device,
        )  # fmt: skip
        attack.init_hyperparam(part.images)
        self.survivors.begin(rows)
        with self._on(rows, Segment("square", None, None, self.budget.eps)) as before:
            attack.attack_single_run(part.images, part.labels)
        return int(self.survivors.fooled.sum()) - before

    @contextmanager
    def _on(self, rows: Tensor, segment: Segment) -> Iterator[int]:
        """An attack on these rows; gives how many samples were fooled before."""
        with self.monitor.segment(segment, self.clean.images[rows]):
            yield int(self.survivors.fooled.sum())

    def _apgd(self, attempt: Attempt) -> Any:
        with needed("pyautoattack", "all", "the cascade"):
            from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        common = {
            "n_iter": attempt.steps, "norm": self.budget.norm, "eps": self.budget.eps,
            "seed": self.seed, "device": self.clean.images.device, "logger": _log,
        }  # fmt: skip
        classes = self.survivors.gaps.shape[1]
        if attempt.rank is not None and classes >= TARGETED_DLR:
            return APGDAttack_targeted(self.survivors, **common)
        return APGDAttack(self.survivors, loss="dlr" if classes >= DLR else "ce", **common)

    def _start(self, attempt: Attempt, rows: Tensor) -> Tensor | None:
        """The first point; None is a random one of the library's.

        With L1, APGD changes as many values as its first point does: it needs one off the image.
        """
        if attempt.start == "random" or (attempt.start == "clean" and self.budget.norm == "L1"):
            return None
        points = self.clean.images if attempt.start == "clean" else self.survivors.points
        return points[rows].clone()


def follow(schedule: Schedule, search: Search) -> None:
    """Try all samples twice, then the nearest ones until nothing is found any more.

    Raises:
        AttackError: the model gives the same images other logits in a second call.
    """
    found = search.survivors
    _refuse_unsteady(found)
    search.run(Attempt(schedule.first_steps, "clean"), found.surviving)
    search.run(Attempt(schedule.next_steps, "best", 1), found.surviving)
    if is_stuck(found) and gradients_mislead(search):
        ask_without_gradients(search)
    quiet = 0
    for number in range(schedule.most_attempts):
        if quiet >= schedule.patience + len(found.surviving) // _PER_ATTEMPT:
            return
        new = search.run(_CYCLE[number % len(_CYCLE)], nearest(found, schedule))
        quiet = 0 if new else quiet + 1
    _log.warning(
        "the cascade still found examples in its last attempts of %d: raise most_attempts, or use "
        "--attack standard",
        schedule.most_attempts,
    )


def _refuse_unsteady(found: Survivors) -> None:
    moved = found.unsteady(found.surviving[:_LOOKED_AT])
    if moved > _UNSTEADY:
        raise AttackError(
            f"cascade: the model gives the same images other logits in a second call (the gap to "
            f"the next class moves by {moved:.0%}): it is randomised, or depends on the other "
            "images of a batch; use --attack rand, or another attack"
        )


def is_stuck(found: Survivors) -> bool:
    """Whether gradients hardly moved some of the samples."""
    hardly = found.left[found.surviving] > _STUCK
    return bool(hardly.float().mean() > _STUCK_SHARE) if len(hardly) else False


def gradients_mislead(search: Search) -> bool:
    """Whether a few queries without gradients come nearer than the gradients on some samples."""
    found = search.survivors
    rows = found.surviving
    rows = rows[torch.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).long()]
    if not len(rows):
        return False
    before = found.left[rows]
    search.ask(_QUERIES, rows)
    return int((found.left[rows] < before).sum()) >= min(_DISAGREES, len(rows))


def ask_without_gradients(search: Search) -> None:
    """Square on all survivors, while it finds examples; says that gradients mislead."""
    found, fooled = search.survivors, 0
    for _ in range(_SQUARES):
        new = search.ask(_MORE_QUERIES, found.surviving)
        fooled += new
        if not new:
            break
    _log.warning(
        "gradients mislead the cascade: random search came nearer, and fooled %d samples more; its "
        "number is too high to trust, use --checks standard",
        fooled,
    )


def nearest(found: Survivors, schedule: Schedule) -> Tensor:
    """The surviving samples with little of their gap left, and at least the nearest ones."""
    rows = found.surviving
    order = found.left[rows].argsort(stable=True)
    count = max(schedule.least, int((found.left[rows] <= schedule.reach).sum()))
    return rows[order[:count]].sort().values
