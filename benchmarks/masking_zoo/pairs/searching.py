"""Test-time optimisation, input denoisers and neural ODEs: something runs before the answer."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import pair, train
from benchmarks.masking_zoo.attacks import StandIn
from benchmarks.masking_zoo.defences.denoisers import Bilateral, Filtered, Median, Reformed
from benchmarks.masking_zoo.defences.optimising import (
    CUT,
    STRAIGHT,
    UNROLLED,
    Confident,
    Hedged,
    Purified,
    Searching,
    searching,
)
from benchmarks.masking_zoo.digits_networks import OdeNet
from benchmarks.masking_zoo.pair import Defend
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    FLAT,
    LYING,
    PGD_CNN,
    UNAVAILABLE,
    WIDE,
    defended,
    honest,
    plain,
    with_light_budgets,
)

SEARCH, DENOISER, ODE = "test-time optimisation", "input denoiser", "neural ODE"
CUT_SEARCH = (*FLAT, "shattered-gradient")


def confident(steps: int, size: float, how: str) -> Defend:
    """Steps towards the guess."""
    return partial(Confident, steps=steps, size=size, how=how)


def hedged(steps: int, size: float, how: str) -> Defend:
    """Steps away from all classes."""
    return partial(Hedged, steps=steps, size=size, how=how)


def purified(steps: int, size: float, how: str) -> Defend:
    """Steps towards what the digits' denoiser reproduces."""

    def defend(net: nn.Module) -> nn.Module:
        return Purified(net, train.trained("digits_denoiser"), steps, size, how)

    return defend


def reformed(how: str, blend: float) -> Defend:
    """The digits' denoiser in front."""

    def defend(net: nn.Module) -> nn.Module:
        return Reformed(net, train.trained("digits_denoiser"), how, blend)

    return defend


def all_gradients(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The bare network, then the search with the identity's gradient and with its own."""
    assert isinstance(model, Searching)
    return [
        StandIn(net), StandIn(searching(model, STRAIGHT)), StandIn(searching(model, UNROLLED)),
    ]  # fmt: skip


def filtered(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The filter with its true gradient, and with the identity's, then the bare network."""
    assert isinstance(model, Filtered)
    return [
        StandIn(searching(model, UNROLLED)), StandIn(searching(model, STRAIGHT)), StandIn(net),
    ]  # fmt: skip


def adjoint(back: int) -> Defend:
    """The ODE's gradient from the adjoint equation in so many steps."""

    def defend(net: nn.Module) -> nn.Module:
        assert isinstance(net, OdeNet)
        other = OdeNet(net.flow.decay, net.steps, back)
        other.load_state_dict(net.state_dict())
        return other

    return defend


SEARCHES = (
    defended("digits-anti-adversary", "digits", 100, confident(4, 0.5, CUT), SEARCH, CUT_SEARCH,
             all_gradients),
    defended("digits-purified", "digits", 100, purified(5, 0.3, CUT), SEARCH, CUT_SEARCH,
             all_gradients),
    defended("digits-robust-purified", "digits_robust", 100, purified(4, 0.2, CUT), SEARCH,
             CUT_SEARCH, all_gradients),
    defended("cnn-pgd-anti-adversary", PGD_CNN, 100, confident(3, 0.15, CUT), SEARCH, CUT_SEARCH,
             all_gradients),
    defended("cnn-wide-hedged", WIDE, 80, hedged(4, 0.1, CUT), SEARCH, CUT_SEARCH, all_gradients),
    honest("digits-robust-purified-unrolled", SEARCH, "digits_robust", 150,
           purified(3, 0.2, UNROLLED), all_gradients),
    honest("digits-mlp-robust-hedged-straight", SEARCH, "digits_mlp_robust", 150,
           hedged(3, 0.05, STRAIGHT), all_gradients),
    honest("cnn-base-anti-adversary-straight", SEARCH, BASE, 150, confident(2, 0.02, STRAIGHT),
           all_gradients),
    honest("cnn-pgd-hedged-straight", SEARCH, PGD_CNN, 150, hedged(2, 0.02, STRAIGHT),
           all_gradients),
)  # fmt: skip

DENOISERS = (
    defended("digits-reformed-cut", "digits", 150, reformed(CUT, 1.0), DENOISER, UNAVAILABLE,
             filtered),
    defended("digits-robust-reformed-cut", "digits_robust", 150, reformed(CUT, 0.6), DENOISER,
             UNAVAILABLE, filtered),
    defended("cnn-pgd-bilateral-cut", PGD_CNN, 100, partial(Bilateral, how=CUT), DENOISER,
             UNAVAILABLE, filtered),
    defended("cnn-wide-median-cut", WIDE, 100, partial(Median, how=CUT, blend=0.7), DENOISER,
             UNAVAILABLE, filtered),
    honest("digits-reformed", DENOISER, "digits", 150, reformed(UNROLLED, 1.0), filtered),
    honest("digits-robust-reformed", DENOISER, "digits_robust", 150, reformed(UNROLLED, 0.6),
           filtered),
    honest("cnn-pgd-bilateral", DENOISER, PGD_CNN, 150, partial(Bilateral, how=UNROLLED),
           filtered),
    honest("cnn-wide-median", DENOISER, WIDE, 150, partial(Median, how=UNROLLED, blend=0.7),
           filtered),
    honest("digits-robust-median-straight", DENOISER, "digits_robust", 150,
           partial(Median, how=STRAIGHT, blend=0.3), filtered),
)  # fmt: skip

ODES = (
    honest("digits-ode", ODE, "digits_ode", 150, plain, pair.itself),
    honest("digits-ode-robust", ODE, "digits_ode_robust", 200, plain, pair.itself),
    defended("digits-ode-adjoint", "digits_ode", 150, adjoint(1), ODE, LYING, pair.bare),
    defended("digits-ode-two-step-adjoint", "digits_ode", 100, adjoint(2), ODE, LYING, pair.bare),
    honest("digits-ode-robust-adjoint", ODE, "digits_ode_robust", 150, adjoint(1), pair.bare),
    honest("digits-ode-robust-fine-adjoint", ODE, "digits_ode_robust", 150, adjoint(40),
           pair.bare),
)  # fmt: skip

SEARCHING = with_light_budgets((*SEARCHES, *DENOISERS, *ODES))
