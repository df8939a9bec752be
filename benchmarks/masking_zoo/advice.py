"""Each mechanism's advice, followed on the masked pairs that flatguard named it for.

What closes the gap between the audited number and the reference is counted as for a label: the
samples that survive PGD-20 and fall to an attack that does what `mechanism.fix_of` says. Nothing
here comes from flatguard's checks but the mechanism. A stage's straight-through gradient, the
branches of a gate, and an output that is not squashed are the pair's own stand-ins.

`python -m benchmarks.masking_zoo.advice` prints a line for each pair of the documented run.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import flatguard  # noqa: F401  (makes torchattacks and pyautoattack importable together)
from benchmarks.masking_zoo import reference, train
from benchmarks.masking_zoo.attacks import StandIn, Survivors, cross_entropy, margin, pgd, square
from benchmarks.masking_zoo.deciding import Fresh
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import find
from benchmarks.masking_zoo.randomised_labels import BestOfDraws
from benchmarks.masking_zoo.results import Store, file_of

STEPS, MANY_STEPS = 50, 200
RESTARTS = 5
QUERIES = 1000


def in_new_copies(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """A new copy of the model for each query batch."""
    pgd(survivors, StandIn(Fresh(model)), cross_entropy, pair.eps, STEPS, 0, "advice")


def on_the_margin(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """The margin in place of cross-entropy."""
    for restart in range(2):
        pgd(survivors, StandIn(model), margin, pair.eps, STEPS, restart, "advice")


def straight_through(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """Through the stage with a straight-through gradient (BPDA)."""
    for stand_in in pair.stand_ins(model):
        pgd(survivors, stand_in, margin, pair.eps, STEPS, 0, "advice")


def by_stand_ins(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """Every branch, and all of them at once; of a squashed output, its unsquashed stand-ins."""
    for stand_in in pair.stand_ins(model):
        for loss in (margin, cross_entropy):
            pgd(survivors, stand_in, loss, pair.eps, STEPS, 0, "advice")


def over_noise(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """Gradients that are averaged over noise, then Square."""
    stand_in = StandIn(model, draws=8, smoothing=0.5)
    pgd(survivors, stand_in, margin, pair.eps, STEPS, 0, "advice")
    square(survivors, pair.eps, QUERIES)


def over_draws(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """The margin's gradients, averaged over draws (EOT)."""
    pgd(survivors, StandIn(model, draws=16), margin, pair.eps, STEPS, 0, "advice")


def more_steps(survivors: Survivors, pair: Pair, model: nn.Module) -> None:
    """More restarts, and more and smaller steps."""
    for restart in range(RESTARTS):
        for loss in (cross_entropy, margin):
            pgd(survivors, StandIn(model), loss, pair.eps, MANY_STEPS, restart, "advice")


FOLLOWED: dict[str, Callable[[Survivors, Pair, nn.Module], None]] = {
    "state": in_new_copies,
    "saturation": on_the_margin,
    "unavailable-gradient": straight_through,
    "shattered-gradient": over_noise,
    "stochastic": over_draws,
    "rugged-loss": more_steps,
}


OWN = {
    ("gates between networks", "shattered-gradient"),
    ("squashed logits", "saturation"),
    ("clipped logits", "saturation"),
    ("non-parametric head", "saturation"),
    ("output codes", "saturation"),
}
"""Kinds and mechanisms whose advice is not the mechanism's usual one; see `mechanism.fix_of`."""


@dataclass(frozen=True)
class Closed:
    """What the advice took from a pair.

    Attributes:
        gap: samples that survive PGD-20 and fall to the reference.
        found: of those that survive PGD-20, how many fall to the advised attack.
    """

    pair: str
    mechanism: str
    gap: int
    found: int

    @property
    def share(self) -> float:
        """Of the gap; above 1 where the advice finds more than the reference."""
        return self.found / self.gap


def followed(pair: Pair, mechanism: str, label: Mapping[str, Any]) -> Closed:
    """Audit the pair with PGD-20, and follow the advice on whoever survives it.

    The reference of a model with a memory, or of one that draws, attacks all clean samples; so
    does the advice.

    Args:
        pair: the pair.
        mechanism: whose advice is followed.
        label: of its documented run.
    """
    torch.manual_seed(reference.SEED)
    model = pair.build()
    untouched = copy.deepcopy(model)
    images, labels = pair.data()
    survivors = pair.survivors(copy.deepcopy(untouched), images, labels, pair.random)
    survivors.once(images, "clean")
    if pair.survivors is Survivors:
        survivors.once(reference.audited(model, images, labels, pair.eps)[0], "audited")
    follow = by_stand_ins if has_own_advice(pair, mechanism) else FOLLOWED[mechanism]
    follow(survivors, pair, untouched)
    left = survivors.rows
    if isinstance(survivors, BestOfDraws):
        left = left[~survivors.decided(left)]
    audited = int(label["audited"])
    return Closed(pair.name, mechanism, audited - int(label["left"]), audited - len(left))


def has_own_advice(pair: Pair, mechanism: str) -> bool:
    """Whether the advice is that for a gate, or for an output that is squashed or clipped."""
    return (pair.kind, mechanism) in OWN


def main() -> None:
    """Follow the advice on every masked pair with a named mechanism."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking_zoo.advice")
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    train.train_all()
    closed = []
    for record in Store(file_of("fast")).records().values():
        result = record.result
        known = result.kind == "masked" and result.mechanism in FOLLOWED
        if known and only in result.pair and find(result.pair).missing() is None:
            one = followed(find(result.pair), str(result.mechanism), result.label)
            closed.append(one)
            print(f"{one.pair}: {one.mechanism}: {one.found} of {one.gap}", flush=True)
    half = sum(one.share >= 0.5 for one in closed)
    print(f"at least half of the gap: {half} of {len(closed)} pairs")


if __name__ == "__main__":
    main()
