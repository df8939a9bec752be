"""Gradients that hooks change, and noise that is a function of the image."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import pair
from benchmarks.masking_zoo.attacks import StandIn
from benchmarks.masking_zoo.defences import hooks
from benchmarks.masking_zoo.defences.hashed import HashedInputNoise, HashedLogitNoise
from benchmarks.masking_zoo.defences.hooks import Change, ModuleHook, TensorHook
from benchmarks.masking_zoo.pair import Defend
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    HALF,
    LYING,
    PGD_CNN,
    STOCHASTIC,
    WIDE,
    defended,
    honest,
    with_light_budgets,
)

HOOKED, HASHED = "hooked gradient", "input-dependent noise"
NOISY = (*LYING, *STOCHASTIC, "rugged-loss")


def tensor_hook(change: Change) -> Defend:
    """A hook on the image."""
    return partial(TensorHook, change=change)


def module_hook(change: Change) -> Defend:
    """A hook on a module."""
    return partial(ModuleHook, change=change)


def many_draws(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The bare network's examples: each look at one has another noise. Then averages over noise."""
    return [StandIn(net), StandIn(model, draws=8, smoothing=0.05), StandIn(model, 4, 0.3)]


HOOKS = (
    defended("digits-robust-mirrored-hook", "digits_robust", 150, tensor_hook(hooks.mirrored),
             HOOKED, LYING, pair.bare),
    defended("cnn-pgd-drowned-hook", PGD_CNN, 100, tensor_hook(hooks.drowned), HOOKED, LYING,
             pair.bare),
    defended("digits-module-hook", "digits", 150, module_hook(hooks.mostly_negated), HOOKED, LYING,
             pair.bare),
    defended("cnn-wide-module-hook", WIDE, 100, module_hook(hooks.mirrored), HOOKED, LYING,
             pair.bare),
    honest("digits-robust-looking-hook", HOOKED, "digits_robust", 150,
           tensor_hook(hooks.looked_at), pair.bare),
    honest("cnn-wide-shrinking-hook", HOOKED, WIDE, 150, module_hook(hooks.shrunk), pair.bare),
    honest("digits-robust-clipping-hook", HOOKED, "digits_robust", 150,
           module_hook(hooks.clipped), pair.bare),
    honest("cnn-base-looking-module-hook", HOOKED, BASE, 150, module_hook(hooks.looked_at),
           pair.bare, radius=HALF),
)  # fmt: skip

NOISE = (
    defended("digits-robust-hashed-noise", "digits_robust", 100,
             partial(HashedInputNoise, sigma=0.1), HASHED, NOISY, many_draws),
    defended("cnn-pgd-hashed-noise", PGD_CNN, 100, partial(HashedInputNoise, sigma=0.05), HASHED,
             NOISY, many_draws),
    defended("digits-robust-hashed-logits", "digits_robust", 100,
             partial(HashedLogitNoise, sigma=1.0), HASHED, NOISY, many_draws),
    honest("cnn-wide-faint-hashed-logits", HASHED, WIDE, 150,
           partial(HashedLogitNoise, sigma=0.003), many_draws, radius=HALF),
    honest("digits-robust-faint-hashed-noise", HASHED, "digits_robust", 150,
           partial(HashedInputNoise, sigma=0.002), many_draws, radius=HALF),
)  # fmt: skip

HOOKED_AND_HASHED = with_light_budgets((*HOOKS, *NOISE))
