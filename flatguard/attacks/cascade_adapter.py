"""AutoAttack's attacks in an order that spends passes where a sample may still be fooled.

APGD on the DLR loss from the clean image finds most of what can be found within a few steps. What
is left is tried towards one more class. From then on only samples that have lost most of their
clean gap are tried, towards the classes that were tried least. The longer nothing is found, the
longer the attempts are, on fewer and nearer samples. The search ends once several attempts in a row
find nothing; it says so where that proves little. Where a look at a few samples shows that
gradients mislead, repaired twins give them, and Square asks without.

Nothing here is a new attack: each attempt is one `attack_single_run` of pyautoattack's APGD or
Square, unchanged. What is chosen is the samples, the class, the start, the number of steps, and the
twin that gives the gradient.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.attacks.attack import WARNINGS, Attack, AttackInfo, check_args, parameters_of
from flatguard.attacks.branch_twin import MeanOfBranches, switch_of
from flatguard.attacks.class_limits import DLR, TARGETED_DLR
from flatguard.attacks.gradient_trust import why_not
from flatguard.attacks.leading_twins import leading_twins
from flatguard.attacks.monitor import Monitor, Segment
from flatguard.attacks.survivors import Images, NothingLeftError, Survivors
from flatguard.environment.requirements import needed
from flatguard.errors import AttackError
from flatguard.geometry.ball import random_point
from flatguard.geometry.budget import Budget, Norm
from flatguard.switches.branches import Switch
from flatguard.twins.outputs import Twin
from flatguard.twins.repairs import IN_WORDS

_NAME = "cascade"
_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")

_SLACK = 0.1
"""A sample leaves an attempt that has not soon come so near its smallest gap, as a share of the
clean gap."""

_STEPS = 14
"""Of a further attempt."""

_DEEPER = 2
"""After so many attempts that fool nobody, attempts get longer, on samples that are nearer."""

_PER_ATTEMPT = 6
"""The search goes on for one more attempt for each so many survivors."""

_UNSTEADY = 0.02
"""A clean gap that moves by this share between two calls is not rounding."""

_LOOKED_AT, _QUERIES, _MORE_QUERIES = 8, 20, 100
"""Samples and queries of the black-box look; queries of each attempt where it disagrees."""

_FIFTHS = 5
"""Square divides the height by this in L2 and L1."""

_MISLED = 0.7
"""Where gradients mislead, the search ends after this share of the passes: what more of them found
on the masking zoo was two points at most, and it says that its number may be too high."""

_DISAGREES, _NEARER = 2, 0.01
"""The black-box look disagrees if it comes nearer than the gradients on so many samples, by more
than this share of the clean gap: less is what a few steps more would find."""

_log = logging.getLogger(WARNINGS)


@dataclass(frozen=True)
class Schedule:
    """How much is spent. The defaults were chosen on real robust networks.

    Attributes:
        first_steps: of APGD from each clean image.
        next_steps: towards one class more, from each best point.
        reach: a sample is tried further if at most this share of its clean gap is left.
        least: at least so many of the nearest samples are tried further.
        patience: the search ends after so many attempts in a row that fool nobody, and one more
            for each six survivors.
        most_passes: it ends in any case after so many forward and backward passes for each sample
            that survived the first two attempts and the look without gradients; after 0.7 of them
            where gradients mislead.
    """

    first_steps: int = 10
    next_steps: int = 8
    reach: float = 0.3
    least: int = 5
    patience: int = 5
    most_passes: int = 280


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

    def begin(self, steps: int) -> None:
        """Attack all samples from the clean image, towards whichever class is nearest."""
        found = self.survivors
        rows = found.surviving
        found.next_classes(rows)  # whichever is nearest counts as tried
        found.begin(rows)
        self._attack(self._apgd(steps, targeted=False), rows, self.clean.images[rows].clone())

    def go_on(self, steps: int, rows: Tensor) -> int:
        """Attack these samples, each towards its next class; returns how many are fooled.

        The first try at a class begins at the best point, a further one at a random point.
        """
        attack, found = self._apgd(steps, targeted=True), self.survivors
        classes, is_first = found.next_classes(rows)
        targeted = attack.loss == "dlr-targeted"
        found.begin(rows, classes if targeted else None, _SLACK)
        return self._attack(attack, rows, self._starts(rows, is_first), classes)

    def _starts(self, rows: Tensor, is_best: Tensor) -> Tensor:
        """The best point of some samples, and a random one of the others."""
        best, clean = self.survivors.points[rows], self.clean.images[rows]
        random = random_point(clean, self.budget.radius, self.budget.norm)
        return torch.where(is_best.view(-1, *[1] * (best.ndim - 1)), best, random)

    def _attack(
        self, attack: Any, rows: Tensor, start: Tensor, classes: Tensor | None = None
    ) -> int:
        """Run APGD. With L1, it changes as many values as its first point does: it chooses one."""
        if not len(rows):
            return 0
        part = self.clean[rows]
        attack.init_hyperparam(part.images)
        attack.y_target = classes
        segment = Segment(f"apgd-{attack.loss}", None, None, self.budget.eps)
        chosen = None if self.budget.norm == "L1" else start
        with self._on(rows, segment) as before:
            attack.attack_single_run(part.images, part.labels, x_init=chosen)
        return int(self.survivors.fooled.sum()) - before

    @property
    def can_ask(self) -> bool:
        """Whether Square can attack these images: its squares in L2 and L1 are of fifths."""
        return self.budget.norm == "Linf" or self.clean.images.shape[2] >= _FIFTHS

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
        """An attack on these rows, until none is left; gives how many were fooled before."""
        with self.monitor.segment(segment, self.clean.images[rows]), suppress(NothingLeftError):
            yield int(self.survivors.fooled.sum())

    def _apgd(self, steps: int, targeted: bool) -> Any:
        with needed("pyautoattack", "all", "the cascade"):
            from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        common = {
            "n_iter": steps, "norm": self.budget.norm, "eps": self.budget.eps,
            "seed": self.seed, "device": self.clean.images.device, "logger": _log,
        }  # fmt: skip
        classes = self.survivors.gaps.shape[1]
        if targeted and classes >= TARGETED_DLR:
            return APGDAttack_targeted(self.survivors, **common)
        return APGDAttack(self.survivors, loss="dlr" if classes >= DLR else "ce", **common)


def follow(schedule: Schedule, search: Search) -> None:
    """Try all samples twice, then the nearest ones until nothing is found any more.

    Raises:
        AttackError: the model gives the same images other logits in a second call.
    """
    found = search.survivors
    _refuse_unsteady(found)
    search.begin(schedule.first_steps)
    search.go_on(schedule.next_steps, found.surviving)
    switch = switch_of(found, *_looked_at(search), search.budget)
    why = _why_it_chooses(switch) or why_gradients_mislead(search)
    passes = schedule.most_passes * (1.0 if why is None else _MISLED)
    most = found.passes + int(passes * len(found.surviving))
    if why is None:
        if not go_on_while_it_finds(schedule, search, most):
            _say_that_it_was_cut_short(schedule)
        return
    before = int(found.fooled.sum())
    followed = follow_twins(schedule, search, switch)
    if not followed:
        ask_without_gradients(search, most)
    go_on_while_it_finds(schedule, search, most)
    if followed:
        ask_without_gradients(search, most)
    _say_that_gradients_mislead(why, followed, int(found.fooled.sum()) - before)


def go_on_while_it_finds(schedule: Schedule, search: Search, most: int) -> bool:
    """Further attempts, until several in a row find nothing.

    Args:
        schedule: how long attempts are, and how many may find nothing.
        search: the attempts.
        most: the passes that the whole search may have spent then.

    Returns:
        False where it ended before, because the passes were spent.
    """
    found, quiet = search.survivors, 0
    while quiet < schedule.patience + len(found.surviving) // _PER_ATTEMPT:
        depth = 1 + quiet // _DEEPER
        rows = nearest(found, schedule, depth)
        if not len(rows):
            return True
        if found.passes + 2 * _STEPS * depth * len(rows) > most:
            return quiet >= schedule.patience
        quiet = 0 if search.go_on(_STEPS * depth, rows) else quiet + 1
    return True


def _say_that_it_was_cut_short(schedule: Schedule) -> None:
    _log.warning(
        "the cascade ended after %d passes for each survivor, before %d attempts in a row found "
        "nothing: raise most_passes, or use --attack standard",
        schedule.most_passes,
        schedule.patience,
    )


def _say_that_gradients_mislead(why: str, followed: list[str], fooled: int) -> None:
    _log.warning(
        "gradients mislead the cascade: %s; by %s it then fooled %d samples more, and its number "
        "may still be too high: use --checks standard",
        why,
        " and ".join([", ".join(followed), "Square"]) if followed else "Square",
        fooled,
    )


def _refuse_unsteady(found: Survivors) -> None:
    moved = found.unsteady(found.surviving[:_LOOKED_AT])
    if moved > _UNSTEADY:
        raise AttackError(
            f"cascade: the model gives the same images other logits in a second call (the gap to "
            f"the next class moves by {moved:.0%}): it is randomised, or depends on the other "
            "images of a batch; use --attack rand, or another attack"
        )


def why_gradients_mislead(search: Search) -> str | None:
    """What shows on a few survivors that gradients mislead, in words; None where nothing does."""
    found = search.survivors
    _, rows = _looked_at(search)
    if len(rows) and search.can_ask:
        before = found.left[rows]
        search.ask(_QUERIES, rows)
        nearer = int((found.left[rows] < before - _NEARER).sum())
        if nearer >= min(_DISAGREES, len(rows)):
            return "random search came nearer"
    images, rows = _looked_at(search)
    return why_not(found, images, rows, search.budget) if len(rows) else None


def _looked_at(search: Search) -> tuple[Tensor, Tensor]:
    """Some survivors, evenly spread: their clean images, and their numbers."""
    rows = search.survivors.surviving
    count = min(_LOOKED_AT, len(rows), max(_DISAGREES, math.ceil(len(rows) / 4)))
    if len(rows):
        rows = rows[torch.linspace(0, len(rows) - 1, count).long()]
    return search.clean.images[rows], rows


def follow_twins(schedule: Schedule, search: Search, switch: Switch) -> list[str]:
    """Attack again along gradients that lead further; returns which, in words.

    The branches of a switch are followed first. The best repaired twin stays in use.
    """
    found, words = search.survivors, []
    if switch.branches:
        _follow(schedule, search, MeanOfBranches(found, switch))
        words.append("gradients of all branches")
    repaired = leading_twins(found, *_looked_at(search), search.budget)
    for repair in reversed(repaired):
        _follow(schedule, search, repair.twin)
    if repaired:
        names = "; ".join(IN_WORDS[repair.name] for repair in repaired)
        words.append(f"repaired gradients ({names})")
    return words


def _follow(schedule: Schedule, search: Search, twin: Twin) -> None:
    search.survivors.follow(twin)
    search.begin(schedule.first_steps)
    search.go_on(schedule.next_steps, search.survivors.surviving)


def _why_it_chooses(switch: Switch) -> str | None:
    """That the output is chosen between branches, in words; None where it is not."""
    if not switch.branches:
        return None
    return (
        f"its output is chosen between {len(switch.branches)} branches ({', '.join(switch.gates)})"
        ", and a gradient shows only one of them"
    )


def ask_without_gradients(search: Search, most: int) -> None:
    """Square on all survivors, while it finds examples and passes are left."""
    found = search.survivors
    while search.can_ask and found.passes + _MORE_QUERIES * len(found.surviving) <= most:
        if not search.ask(_MORE_QUERIES, found.surviving):
            break


def nearest(found: Survivors, schedule: Schedule, depth: int) -> Tensor:
    """The surviving samples with little of their gap left, and at least the nearest ones."""
    rows = found.surviving
    order = found.left[rows].argsort(stable=True)
    near = int((found.left[rows] <= schedule.reach / depth).sum())
    count = max(math.ceil(schedule.least / depth), near)
    return rows[order[:count]].sort().values
