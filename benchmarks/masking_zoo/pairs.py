"""The catalogue. Families are what was built; labels are what `reference.py` measures."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import pi

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.attacks import Budget
from benchmarks.masking_zoo.defences import inputs, outputs, randomised
from benchmarks.masking_zoo.pair import Defend, Pair, Plan
from benchmarks.masking_zoo.switch_pairs import LOOK_ALIKES, SWITCHED

SATURATION = ("saturation",)
UNAVAILABLE = ("unavailable-gradient",)
STOCHASTIC = ("stochastic",)
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
HALF = Fraction(1, 2)


def plain(net: nn.Module) -> nn.Module:
    """No defence."""
    return net


def vote(net: nn.Module) -> nn.Module:
    """The network and the two other small ones."""
    return outputs.Vote([net, *(networks.load(name).module for name in (BASE, PGD_CNN))])


def random_member(net: nn.Module) -> nn.Module:
    """The network or one of two others, by chance."""
    names = ("digits_2", "digits_robust")
    return randomised.RandomMember([net, *(networks.load(name).module for name in names)])


def budget_of(network: str, random: bool) -> Budget:
    """What the reference spends, by the price of a forward pass."""
    if random:
        return WITH_EOT
    if network in networks.DIGITS:
        return ON_DIGITS
    return ON_CNN if network.startswith("cnn") else ON_RESNET


def honest(
    name: str,
    network: str,
    n: int,
    defend: Defend = plain,
    plan: Plan = pair.itself,
    *,
    radius: Fraction = Fraction(1),
    random: bool = False,
) -> Pair:
    """A pair that nothing should mask; if something does, its label says so."""
    return Pair(
        name, network, defend, "honest", (), plan, n, random, budget_of(network, random), radius
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
) -> Pair:
    """A pair with a defence that may mask."""
    budget = budget_of(network, random)
    return Pair(name, network, defend, family, mechanism, plan, n, random, budget)


def _bits(kind: type[nn.Module], bits: int) -> Defend:
    return partial(kind, bits=bits)


def _scaled(factor: float) -> Defend:
    return partial(outputs.ScaledLogits, factor=factor)


HONEST = (
    honest("resnet20", "resnet20", 100),
    honest("resnet20-temperature", "resnet20", 100, partial(outputs.Temperature, temperature=2.0)),
    honest("resnet20-probabilities", "resnet20", 100, outputs.Probabilities, pair.bare),
    honest("resnet20-smooth-rounding", "resnet20", 100, _bits(inputs.SmoothRounding, 6)),
    honest("resnet20-jpeg-straight", "resnet20", 200, partial(inputs.HonestJpeg, quality=75)),
    honest(
        "resnet20-slow-ripple", "resnet20", 100,
        partial(inputs.Ripple, height=0.008, frequency=160.0), pair.smoothed,
    ),
    honest(
        "resnet20-faint-noise", "resnet20", 80, partial(randomised.InputNoise, sigma=0.01),
        pair.averaged, random=True,
    ),
    honest(
        "resnet20-resize-pad", "resnet20", 80, partial(randomised.RandomResizePad, smallest=28),
        pair.averaged, random=True,
    ),
    honest("resnet56", "resnet56", 80),
    honest("demo", networks.DEMO, 80),
    honest("rsfgsm", "resnet20_rsfgsm", 200),
    honest("rsfgsm-half", "resnet20_rsfgsm", 200, radius=HALF),
    honest("cnn-wide", WIDE, 300),
    honest("cnn-wide-x30", WIDE, 300, _scaled(30.0), pair.bare),
    honest("cnn-wide-probabilities", WIDE, 300, outputs.Probabilities, pair.bare),
    honest("cnn-base", BASE, 300),
    honest("cnn-base-half", BASE, 300, radius=HALF),
    honest("cnn-pgd", PGD_CNN, 300),
    honest("cnn-pgd-half", PGD_CNN, 300, radius=HALF),
    honest(
        "cnn-pgd-half-temperature", PGD_CNN, 300, partial(outputs.Temperature, temperature=0.5),
        radius=HALF,
    ),
    honest("digits", "digits", 200),
    honest("digits-temperature", "digits", 200, partial(outputs.Temperature, temperature=3.0)),
    honest("digits-robust", "digits_robust", 300),
    honest("digits-robust-half", "digits_robust", 200, radius=HALF),
    honest(
        "digits-robust-half-probabilities", "digits_robust", 200, outputs.Probabilities, pair.bare,
        radius=HALF,
    ),
    *LOOK_ALIKES,
)  # fmt: skip

SATURATED = (
    *(
        defended(
            f"resnet20-x{factor:g}", "resnet20", 100, _scaled(factor), "logit scaling", SATURATION,
            pair.bare,
        )
        for factor in (30.0, 100.0, 1000.0)
    ),
    defended("resnet56-x100", "resnet56", 60, _scaled(100.0), "logit scaling", SATURATION,
             pair.bare),
    defended("demo-x100", networks.DEMO, 60, _scaled(100.0), "logit scaling", SATURATION,
             pair.bare),
    defended("cnn-wide-x1000", WIDE, 200, _scaled(1000.0), "logit scaling", SATURATION, pair.bare),
    defended("cnn-pgd-x300", PGD_CNN, 200, _scaled(300.0), "logit scaling", SATURATION, pair.bare),
    defended("resnet20-percent", "resnet20", 100, outputs.SharpProbabilities, "percent",
             SATURATION, pair.bare),
    defended("resnet20-tanh", "resnet20", 100, outputs.TanhLogits, "squashed logits", SATURATION,
             pair.bare),
    defended("resnet20-sigmoid", "resnet20", 100, partial(outputs.SigmoidLogits, gain=1000.0),
             "squashed logits", SATURATION, pair.bare),
    defended("resnet20-clipped", "resnet20", 100, partial(outputs.ClippedLogits, floor=-5.0),
             "clipped logits", SATURATION, pair.bare),
    defended("resnet20-anti-adversary", "resnet20", 100, inputs.AntiAdversary,
             "test-time optimisation", FLAT, pair.bare),
    defended("digits-distilled", "digits_distilled", 200, plain, "defensive distillation",
             SATURATION, pair.cooler),
)  # fmt: skip

WITHOUT_GRADIENT = (
    defended("resnet20-round3", "resnet20", 100, _bits(inputs.RoundedBits, 3), "bit depth",
             UNAVAILABLE, pair.straight),
    defended("resnet56-floor3", "resnet56", 60, _bits(inputs.FlooredBits, 3), "bit depth",
             UNAVAILABLE, pair.straight),
    defended("demo-quantised3", networks.DEMO, 60, _bits(inputs.Quantised, 3), "custom backward",
             UNAVAILABLE, pair.straight),
    defended("cnn-wide-round4", WIDE, 200, _bits(inputs.RoundedBits, 4), "bit depth", UNAVAILABLE,
             pair.straight),
    defended("cnn-base-floor4", BASE, 200, _bits(inputs.FlooredBits, 4), "bit depth", UNAVAILABLE,
             pair.straight),
    defended("cnn-pgd-quantised4", PGD_CNN, 200, _bits(inputs.Quantised, 4), "custom backward",
             UNAVAILABLE, pair.straight),
    defended("resnet20-jpeg", "resnet20", 100, partial(inputs.Jpeg, quality=75), "JPEG",
             UNAVAILABLE, pair.straight),
    defended("cnn-pgd-jpeg-layer", PGD_CNN, 200, partial(inputs.JpegLayer, quality=90), "JPEG",
             UNAVAILABLE, pair.straight),
    defended("cnn-pgd-median", PGD_CNN, 200, inputs.MedianFilter, "no_grad preprocessing",
             UNAVAILABLE, pair.straight),
    defended("cnn-pgd-detached", PGD_CNN, 200, inputs.Detached, "detach", UNAVAILABLE, pair.bare),
    defended("resnet20-rounded-logits", "resnet20", 100, partial(outputs.RoundedLogits, step=0.5),
             "rounded logits", UNAVAILABLE, pair.bare),
    defended("cnn-vote", WIDE, 200, vote, "ensemble vote", UNAVAILABLE, pair.members),
    defended("digits-thermometer", "digits_thermometer", 200, plain, "thermometer", UNAVAILABLE,
             pair.soft_code),
    defended("resnet20-negated", "resnet20", 100, partial(inputs.LyingGradient, how="negated"),
             "custom backward", LYING, pair.bare),
    defended("resnet20-random-gradient", "resnet20", 100,
             partial(inputs.LyingGradient, how="random"), "custom backward", LYING, pair.bare),
)  # fmt: skip

BUMPY = (
    defended("resnet20-ripple", "resnet20", 100,
             partial(inputs.Ripple, height=0.008, frequency=1500.0), "ripple", RUGGED,
             pair.smoothed),
    defended("cnn-wide-ripple", WIDE, 200, partial(inputs.Ripple, height=0.002, frequency=5000.0),
             "ripple", RUGGED, pair.smoothed),
    defended("resnet20-sawtooth", "resnet20", 100, partial(inputs.Sawtooth, steps=128, slope=0.5),
             "sawtooth", RUGGED, pair.straight),
    defended("cnn-pgd-sawtooth", PGD_CNN, 200, partial(inputs.Sawtooth, steps=256, slope=0.5),
             "sawtooth", RUGGED, pair.straight),
    defended("resnet20-logit-ripple", "resnet20", 100,
             partial(outputs.LogitRipple, shape=(3, 32, 32), height=1.0, frequency=3000.0),
             "ripple", RUGGED, pair.bare),
    defended("cnn-wide-logit-waves", WIDE, 200,
             partial(outputs.LogitRipple, shape=(3, 32, 32), height=0.2, frequency=60.0),
             "ripple", RUGGED, pair.smoothed),
    defended("cnn-pgd-pixel-ripple", PGD_CNN, 200,
             partial(inputs.Ripple, height=-0.0019, frequency=255 * pi), "ripple", RUGGED,
             pair.smoothed),
    defended("digits-robust-ripple", "digits_robust", 150,
             partial(inputs.Ripple, height=-0.06, frequency=16 * pi), "ripple", RUGGED,
             pair.smoothed),
    defended("digits-robust-waves", "digits_robust", 150,
             partial(outputs.LogitRipple, shape=(1, 8, 8), height=1.0, frequency=20.0),
             "ripple", RUGGED, pair.smoothed),
    defended("digits-robust-slow-waves", "digits_robust", 150,
             partial(outputs.LogitRipple, shape=(1, 8, 8), height=1.0, frequency=8.0),
             "ripple", ("rugged-loss",), pair.smoothed),
    defended("digits-kwta", "digits_kwta", 200, plain, "k-winners-take-all", RUGGED, pair.kwta),
    defended("digits-kwta-robust", "digits_kwta_robust", 200, plain, "k-winners-take-all", RUGGED,
             pair.kwta),
    defended("digits-collapsed", "digits_collapsed", 200, plain, "catastrophic overfitting",
             RUGGED, pair.collapsed),
)  # fmt: skip

RANDOM = (
    defended("digits-dropout", "digits_dropout", 150, plain, "stochastic activation", STOCHASTIC,
             pair.averaged, random=True),
    defended("digits-robust-noise", "digits_robust", 200,
             partial(randomised.InputNoise, sigma=0.2), "input noise", STOCHASTIC, pair.averaged,
             random=True),
    defended("digits-robust-resize", "digits_robust", 100,
             partial(randomised.RandomResizePad, smallest=6), "resize and pad", STOCHASTIC,
             pair.averaged, random=True),
    defended("digits-random-member", "digits", 150, random_member, "random member", STOCHASTIC,
             lambda model, net: [*pair.members(model, net), *pair.averaged(model, net)],
             random=True),
    defended("digits-robust-dither", "digits_robust", 150,
             partial(randomised.RandomPhase, height=0.01, frequency=1000.0), "dither", STOCHASTIC,
             pair.averaged, random=True),
    defended("resnet20-dither", "resnet20", 80,
             partial(randomised.RandomPhase, height=0.01, frequency=1000.0), "dither", STOCHASTIC,
             pair.averaged, random=True),
    defended("cnn-wide-dither", WIDE, 200,
             partial(randomised.RandomPhase, height=0.004, frequency=4000.0), "dither", STOCHASTIC,
             pair.averaged, random=True),
    defended("cnn-wide-noise", WIDE, 200, partial(randomised.InputNoise, sigma=0.1),
             "input noise", STOCHASTIC, pair.averaged, random=True),
    defended("cnn-pgd-noisy-logits", PGD_CNN, 200,
             partial(randomised.NoisyLogits, height=0.5, frequency=2000.0), "noisy logits",
             STOCHASTIC, pair.averaged, random=True),
    defended("cnn-pgd-uneven-light", PGD_CNN, 200, partial(randomised.NoisyScale, spread=0.3),
             "input noise", STOCHASTIC, pair.averaged, random=True),
)  # fmt: skip

CATALOGUE: tuple[Pair, ...] = (
    *HONEST, *SATURATED, *WITHOUT_GRADIENT, *BUMPY, *RANDOM, *SWITCHED
)  # fmt: skip


def find(name: str) -> Pair:
    """A pair by its name."""
    return next(found for found in CATALOGUE if found.name == name)
