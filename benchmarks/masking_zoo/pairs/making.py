"""How the catalogue's pairs are made: words, budgets and the two makers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.attacks import Budget, Survivors
from benchmarks.masking_zoo.deciding import AloneInCleanBatch
from benchmarks.masking_zoo.defences import outputs
from benchmarks.masking_zoo.pair import Defend, Pair, Plan
from benchmarks.masking_zoo.randomised_labels import BestOfDraws

SATURATION = ("saturation",)
UNAVAILABLE = ("unavailable-gradient",)
STOCHASTIC = ("stochastic",)
STATE = ("state",)
WEAK: tuple[str, ...] = ()
"""No mechanism: the audited attack is too weak for a true gradient."""

RUGGED = ("rugged-loss", "shattered-gradient")
"""A bumpy loss is rugged, its gradients are shattered: only the bumps' size divides the words."""

LYING = ("unavailable-gradient", "shattered-gradient")
"""A wrong gradient is none, or a shattered one (Athalye et al. 2018 say the latter)."""

FLAT = ("saturation", "unavailable-gradient")
"""Where an inner search, cut out of the graph, ends in a confident valley."""

WIDE, BASE, PGD_CNN = "cnn_wide_certified", "cnn_base_certified", "cnn_a_pgd"
ON_DIGITS = Budget(steps=100, restarts=4, targets=4, queries=800)
ON_CNN = Budget(steps=60, restarts=3, targets=3, queries=600)
ON_RESNET = Budget(steps=50, restarts=2, targets=2, queries=300)
WITH_EOT = Budget(steps=40, restarts=1, targets=0, queries=300)
LIGHT = Budget(steps=50, restarts=2, targets=3, queries=300)
HALF = Fraction(1, 2)


def plain(net: nn.Module) -> nn.Module:
    """No defence."""
    return net


def budget_of(network: str, random: bool) -> Budget:
    """What the reference spends, by the price of a forward pass."""
    if random:
        return WITH_EOT
    if network in networks.DIGITS:
        return ON_DIGITS
    return ON_CNN if network.startswith("cnn") else ON_RESNET


def honest(
    name: str,
    kind: str,
    network: str,
    n: int,
    defend: Defend = plain,
    plan: Plan = pair.itself,
    *,
    radius: Fraction = Fraction(1),
    random: bool = False,
    survivors: type[Survivors] = Survivors,
) -> Pair:
    """A pair that nothing should mask; if something does, its label says so."""
    budget = budget_of(network, random)
    survivors = BestOfDraws if random else survivors
    return Pair(
        name, network, defend, "honest", (), plan, n, random, budget, radius, kind, survivors
    )


def defended(
    name: str,
    network: str,
    n: int,
    defend: Defend,
    family: str,
    mechanism: tuple[str, ...],
    plan: Plan,
    random: bool = False,
    *,
    survivors: type[Survivors] = Survivors,
) -> Pair:
    """A pair with a defence that may mask; its family is its kind."""
    budget = budget_of(network, random)
    survivors = BestOfDraws if random else survivors
    if survivors is AloneInCleanBatch:
        budget = replace(budget, queries=0)  # Square asks whole batches of its own
    return Pair(
        name, network, defend, family, mechanism, plan, n, random, budget,
        kind=family, survivors=survivors,
    )  # fmt: skip


def with_light_budgets(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The same pairs with shorter references: many of their stand-ins have several draws."""
    return tuple(
        pair if pair.random
        else replace(pair, budget=replace(LIGHT, queries=min(LIGHT.queries, pair.budget.queries)))
        for pair in pairs
    )  # fmt: skip


def bits(kind: type[nn.Module], number: int) -> Defend:
    """A front with so many bits."""
    return partial(kind, bits=number)


def scaled(factor: float) -> Defend:
    """Logits times a factor."""
    return partial(outputs.ScaledLogits, factor=factor)
