"""Heads: output codes, neighbours and densities, bounded scores, tiny scales, few classes, none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.attacks import StandIn
from benchmarks.masking_zoo.defences import inputs, outputs
from benchmarks.masking_zoo.defences.heads import (
    BoundedLogs,
    Constant,
    KernelDensity,
    LogDensity,
    NearestDistance,
    Neighbours,
    NeighbourVote,
    Prototypes,
    Reporting,
)
from benchmarks.masking_zoo.digits_networks import CodeNet
from benchmarks.masking_zoo.pair import Defend
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    HALF,
    PGD_CNN,
    SATURATION,
    UNAVAILABLE,
    WEAK,
    WIDE,
    bits,
    defended,
    honest,
    plain,
    scaled,
    with_light_budgets,
)

CODES, BANK, BOUNDED = "output codes", "non-parametric head", "bounded log-probabilities"
TINY, FEW, USELESS = "tiny logit scale", "few classes", "useless network"


def steeper(gain: float) -> Defend:
    """The code network with steeper bits."""

    def defend(net: nn.Module) -> nn.Module:
        assert isinstance(net, CodeNet)
        return _code_net(net, gain, linear=False)

    return defend


def without_tanh(net: nn.Module) -> nn.Module:
    """The code network, decoded from its plain outputs."""
    assert isinstance(net, CodeNet)
    return _code_net(net, 1.0, linear=True)


def _code_net(net: CodeNet, gain: float, linear: bool) -> CodeNet:
    other = CodeNet(net.words.shape[1], gain, linear)
    other.load_state_dict(net.state_dict())
    return other


def decoded(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Plain outputs instead of bits, bits that are not so steep, and the model itself."""
    assert isinstance(net, CodeNet)
    soft = [StandIn(_code_net(net, gain, linear=False)) for gain in (0.2, 1.0, 5.0)]
    return [StandIn(without_tanh(net)), *soft, StandIn(model, draws=4, smoothing=0.3)]


def with_bank(kind: Callable[..., nn.Module], network: str, **settings: float) -> Defend:
    """A head without weights, and its examples."""

    def defend(net: nn.Module) -> nn.Module:
        return kind(net, *networks.calibration(network), **settings)

    return defend


def soft_bank(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Log densities with wide and with middle kernels in place of votes and probabilities."""
    assert isinstance(model, Neighbours)
    soft = [StandIn(LogDensity(model, width)) for width in (0.3, 0.1)]
    return [*soft, StandIn(net), StandIn(model)]


BANKS = (
    defended("digits-neighbour-vote", "digits", 100, with_bank(NeighbourVote, "digits", k=5), BANK,
             UNAVAILABLE, soft_bank),
    defended("cnn-pgd-neighbour-vote", PGD_CNN, 100, with_bank(NeighbourVote, PGD_CNN, k=9), BANK,
             UNAVAILABLE, soft_bank),
    defended("digits-robust-narrow-density", "digits_robust", 100,
             with_bank(KernelDensity, "digits_robust", width=0.01, logs=False), BANK, SATURATION,
             soft_bank),
    defended("digits-narrow-density", "digits", 100,
             with_bank(KernelDensity, "digits", width=0.02, logs=False), BANK, SATURATION,
             soft_bank),
    honest("digits-robust-log-density", BANK, "digits_robust", 150,
           with_bank(KernelDensity, "digits_robust", width=0.3, logs=True), soft_bank),
    honest("digits-robust-prototypes", BANK, "digits_robust", 150,
           with_bank(Prototypes, "digits_robust", scale=5.0), pair.itself),
    honest("cnn-wide-prototypes", BANK, WIDE, 150, with_bank(Prototypes, WIDE, scale=5.0)),
    honest("digits-robust-nearest", BANK, "digits_robust", 150,
           with_bank(NearestDistance, "digits_robust"), soft_bank),
)  # fmt: skip

SCORES = (
    defended("digits-code16-steep", "digits_code16", 100, steeper(100.0), CODES, SATURATION,
             decoded),
    honest("digits-code16", CODES, "digits_code16", 150, plain, decoded),
    defended("digits-code32-steep", "digits_code32_robust", 150, steeper(10.0), CODES, SATURATION,
             decoded),
    honest("digits-code32-robust", CODES, "digits_code32_robust", 200, plain, decoded),
    honest("digits-code32-linear", CODES, "digits_code32_robust", 200, without_tanh, pair.itself),
    defended("resnet20-bounded-logs", "resnet20", 60, partial(BoundedLogs, low=-6.0, high=-1e-4),
             BOUNDED, SATURATION, pair.bare),
    defended("digits-robust-bounded-logs", "digits_robust", 150,
             partial(BoundedLogs, low=-3.0, high=-0.1), BOUNDED, SATURATION, pair.bare),
    honest("digits-robust-loosely-bounded-logs", BOUNDED, "digits_robust", 150,
           partial(BoundedLogs, low=-100.0), pair.bare),
    honest("cnn-pgd-loosely-bounded-logs", BOUNDED, PGD_CNN, 150,
           partial(BoundedLogs, low=-50.0), pair.bare, radius=HALF),
    defended("digits-robust-x0.001", "digits_robust", 200, scaled(1e-3), TINY, WEAK, pair.bare),
    defended("cnn-pgd-x0.001", PGD_CNN, 150, scaled(1e-3), TINY, WEAK, pair.bare),
    defended("digits-smooth-robust-x0.001", "digits_smooth_robust", 150, scaled(1e-3), TINY, WEAK,
             pair.bare),
    defended("resnet20-x0.001", "resnet20", 80, scaled(1e-3), TINY, WEAK, pair.bare),
)  # fmt: skip

CLASSES = (
    honest("digits-parity", FEW, "digits_parity", 200),
    honest("digits-parity-robust", FEW, "digits_parity_robust", 200),
    honest("digits-thirds-robust", FEW, "digits_thirds_robust", 200),
    honest("digits-parity-robust-half", FEW, "digits_parity_robust", 200, radius=HALF),
    honest("cnn-pgd-vehicles", FEW, networks.VEHICLES, 150),
    honest("cnn-wide-three-groups", FEW, networks.THREE, 150),
    defended("digits-parity-x1000", "digits_parity", 100, scaled(1000.0), FEW, SATURATION,
             pair.bare),
    defended("digits-thirds-robust-round2", "digits_thirds_robust", 100,
             bits(inputs.RoundedBits, 2), FEW, UNAVAILABLE, pair.straight),
    honest("digits-untrained", USELESS, "digits_untrained", 100),
    honest("digits-shuffled", USELESS, "digits_shuffled", 100),
    honest("digits-constant", USELESS, "digits", 100, partial(Constant, answer=3), pair.bare),
    honest("cnn-nearly-constant", USELESS, PGD_CNN, 100, partial(Constant, answer=8, voice=0.1),
           pair.bare),
    honest("digits-robust-reporting", "reporting", "digits_robust", 150, Reporting),
    honest("cnn-base-reporting", "reporting", BASE, 150, Reporting, radius=HALF),
    honest("digits-pooled-robust", "adversarial training", "digits_pooled_robust", 200),
    honest("digits-smooth-robust", "adversarial training", "digits_smooth_robust", 200),
    honest("digits-mlp-robust", "adversarial training", "digits_mlp_robust", 200),
    honest("digits-mlp-robust-half-x10", "logit scaling", "digits_mlp_robust", 150, scaled(10.0),
           pair.bare, radius=HALF),
    honest("digits-pooled-robust-temperature", "temperature", "digits_pooled_robust", 150,
           partial(outputs.Temperature, temperature=2.0), pair.bare),
)  # fmt: skip

HEADS = with_light_budgets((*BANKS, *SCORES, *CLASSES))
