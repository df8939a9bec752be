"""Switches: the output is chosen between branches, and each branch is a twin of its own.

The gradient of a model with a switch is that of the branch that it takes here. It is true, and it
says nothing about the gate: an attack is drawn to where this branch is wrong, and there the gate
takes another one. So all branches are attacked at once, each alone, and each together with its
gate (Tramer et al. 2020 on detectors and ensembles).

A *branch* is the model with its gates forced (`gates.py`) so that no other gate changes the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flatguard.errors import ran_out_of_memory
from flatguard.switches.gates import Forced, Gate, Gates, Place
from flatguard.twins.outputs import Outputs

MOST_BRANCHES = 10

LOOKED_AT = 8
"""Samples on which branches are found."""

MOST_RUNS = 96
"""Forward passes that finding branches may take."""

_GATES_TRIED = 8
"""So many gates, the last ones first, are tried for an effect on the output."""

SameDraw = Callable[[], AbstractContextManager[None]]

_SAME = 1e-5
"""Logits that differ by less than this share of their size are the same."""


@dataclass(frozen=True)
class Pass:
    """A forward pass with forced gates.

    Attributes:
        logits: `(n, k)`.
        slack: how far each image is on the forced side of the gates, `(n,)`; None: unknown.
        seen: the gates that it met.
    """

    logits: Tensor
    slack: Tensor | None
    seen: dict[Place, Gate]


@dataclass(frozen=True)
class Branch:
    """One of the computations that a switch chooses from.

    Attributes:
        model: the target.
        forced: its gates, with what they are forced to.
        classes: of the target.
        is_alive: whether its logits have a gradient in the image.
    """

    model: nn.Module
    forced: Forced
    classes: int
    is_alive: bool

    def __call__(self, images: Tensor) -> Pass:
        """The target's computation with these gates forced."""
        return forced_pass(self.model, images, self.classes, self.forced)

    def twin(self, images: Tensor) -> Outputs:
        """Its logits alone."""
        logits = self(images).logits
        return Outputs(logits, logits)


class Frozen(nn.Module):
    """A branch as a model of its own, which counts the rows that it is given."""

    def __init__(self, branch: Branch):
        super().__init__()
        self._branch, self.rows = branch, 0
        self.target = branch.model

    def forward(self, images: Tensor) -> Tensor:
        """The branch's logits."""
        self.rows += len(images)
        return self._branch(images).logits


@dataclass
class Switch:
    """A switch between branches.

    Attributes:
        branches: at least two, different ones; empty where there is no switch.
        gates: the names of the operations that choose.
        runs: forward passes that it took to find them.
        jumps: whether the output may jump where the choice changes.
    """

    branches: list[Branch] = field(default_factory=list)
    gates: list[str] = field(default_factory=list)
    runs: int = 0
    jumps: bool = False

    @property
    def alive(self) -> list[int]:
        """The numbers of the branches that have a gradient."""
        return [number for number, branch in enumerate(self.branches) if branch.is_alive]


def forced_pass(model: nn.Module, images: Tensor, classes: int, forced: Forced) -> Pass:
    """One pass with forced gates. A single image is shown twice: gates know images by number."""
    x = torch.cat([images, images]) if len(images) == 1 else images
    mode = Gates(len(x), classes, forced)
    with torch.enable_grad() if images.requires_grad else torch.no_grad(), mode:
        logits = model(x)
    slack = mode.slack.of(len(x))
    n = len(images)
    return Pass(logits[:n], None if slack is None else slack[:n], mode.seen)


def find_switch(
    model: nn.Module, images: Tensor, others: Tensor, same_draw: SameDraw = nullcontext
) -> Switch:
    """The branches of a model's output.

    Gates are forced one after the other, the last one first, until no gate that is left changes the
    output. What remains are the branches.

    Args:
        model: in eval mode.
        images: some images, of which no two are the same.
        others: as many other images: a gate that is given the same for both is a constant.
        same_draw: makes each pass of a randomised model draw the same numbers. A model that answers
            otherwise in spite of it has no switch that could be found.

    Cost: three forward passes over these images; up to `MOST_RUNS` where there are gates.
    """
    finder = _Finder(model, images, same_draw)
    try:
        with torch.no_grad(), same_draw():
            logits = model(images)
        finder.classes = logits.shape[1]
        natural = finder.run({})
        if natural is None or not natural.found.seen:
            return Switch(runs=finder.runs)
        if _gap(natural.found.logits, logits) > _SAME:
            return Switch(runs=finder.runs)
        with same_draw():
            elsewhere = forced_pass(model, others, finder.classes, {})
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        return Switch(runs=finder.runs)  # a user's model may fail where it is intercepted
    finder.ignored = set(_constant(natural.found, elsewhere))
    return finder.switch(list(finder.leaves(natural)))


def _constant(natural: Pass, elsewhere: Pass) -> Iterator[Place]:
    for place, gate in natural.seen.items():
        other = elsewhere.seen.get(place)
        if other is not None and torch.equal(gate.given, other.given):
            yield place


@dataclass(frozen=True)
class _Tried:
    """A pass on which branches are looked for, and whether its logits have a gradient."""

    found: Pass
    is_alive: bool


@dataclass(frozen=True)
class _Leaf:
    forced: dict[Place, int]
    tried: _Tried


class _Finder:
    def __init__(self, model: nn.Module, images: Tensor, same_draw: SameDraw):
        self._model, self._images, self._same_draw = model, images, same_draw
        self.classes, self.runs = 0, 0
        self.ignored: set[Place] = set()
        self._gates: dict[Place, Gate] = {}

    def run(self, forced: dict[Place, int]) -> _Tried | None:
        """None where there are no passes left, or the model fails with these choices."""
        if self.runs >= MOST_RUNS:
            return None
        self.runs += 1
        images = self._images.detach().clone().requires_grad_(True)
        try:
            with self._same_draw():
                found = forced_pass(self._model, images, self.classes, forced)
            if found.logits.shape != (len(images), self.classes):
                return None
            is_alive = _has_gradient(found.logits, images)
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            return None
        self._gates.update(found.seen)
        if not bool(found.logits.isfinite().all()):
            return None
        logits, slack = found.logits.detach(), found.slack
        return _Tried(Pass(logits, slack, found.seen), is_alive)

    def leaves(self, natural: _Tried) -> Iterator[_Leaf]:
        """The passes in which no gate is left that changes the output."""
        left = [_Leaf({}, natural)]
        while left:
            leaf = left.pop()
            children = self._split(leaf)
            if children:
                left += reversed(children)
            elif leaf.forced:
                yield leaf

    def _split(self, leaf: _Leaf) -> list[_Leaf]:
        """The choices of the last gate that changes the output."""
        seen = leaf.tried.found.seen
        free = [place for place in seen if place not in leaf.forced and place not in self.ignored]
        for place in list(reversed(free))[:_GATES_TRIED]:
            options = seen[place].options
            tried = {option: self.run({**leaf.forced, place: option}) for option in _ends(options)}
            if not _matters(tried, leaf.tried, len(options)):
                continue
            for option in options:
                if option not in tried:
                    tried[option] = self.run({**leaf.forced, place: option})
            return [
                _Leaf({**leaf.forced, place: option}, found)
                for option, found in sorted(tried.items())
                if found is not None
            ]
        return []

    def switch(self, leaves: list[_Leaf]) -> Switch:
        """Leaves that differ from each other; none where fewer than two do."""
        kept: list[_Leaf] = []
        for leaf in sorted(leaves, key=lambda leaf: not leaf.tried.is_alive):
            if all(_differ(leaf.tried, other.tried) for other in kept):
                kept.append(leaf)
        if len(kept) < 2 or not kept[0].tried.is_alive:
            return Switch(runs=self.runs)
        kept = kept[:MOST_BRANCHES]
        gates = [self._gates[place] for leaf in kept for place in leaf.forced]
        branches = [
            Branch(self._model, leaf.forced, self.classes, leaf.tried.is_alive) for leaf in kept
        ]
        names = sorted({gate.name for gate in gates})
        return Switch(branches, names, self.runs, any(gate.jumps for gate in gates))


def _has_gradient(logits: Tensor, images: Tensor) -> bool:
    if not logits.requires_grad:
        return False
    (found,) = torch.autograd.grad(logits.square().sum(), images, allow_unused=True)
    return found is not None and bool(found.any())


def _matters(tried: dict[int, _Tried | None], before: _Tried, options: int) -> bool:
    """Whether a choice changes the output; of many choices, some must have a gradient."""
    changed = [found for found in tried.values() if found is not None and _differ(found, before)]
    return any(found.is_alive or options == 2 for found in changed)


def _ends(options: tuple[int, ...]) -> set[int]:
    return {options[0], options[-1]} if len(options) <= 2 else {*options[:2], options[-1]}


def _differ(one: _Tried, other: _Tried) -> bool:
    return _gap(one.found.logits, other.found.logits) > _SAME


def _gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, over the largest logit."""
    size = torch.maximum(one.abs(), other.abs()).max().clamp_min(1e-30)
    return float((one - other).abs().max() / size)
