"""Networks that draw anew at every call."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.defences import randomised
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    HALF,
    PGD_CNN,
    STOCHASTIC,
    WIDE,
    defended,
    honest,
    plain,
)


def random_member(net: nn.Module) -> nn.Module:
    """The network or one of two others, by chance."""
    names = ("digits_2", "digits_robust")
    return randomised.RandomMember([net, *(networks.load(name).module for name in names)])


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
    defended("digits-robust-shift", "digits_robust", 100,
             partial(randomised.RandomShift, pixels=1), "random transformation", STOCHASTIC,
             pair.averaged, random=True),
    defended("cnn-pgd-barrage", PGD_CNN, 80, partial(randomised.Barrage, strength=0.25),
             "random transformation", STOCHASTIC, pair.averaged, random=True),
    defended("digits-pixel-dropout", "digits", 100, partial(randomised.PixelDropout, rate=0.1),
             "random transformation", STOCHASTIC, pair.averaged, random=True),
    honest("cnn-wide-random-flip", "random transformation", WIDE, 100, randomised.RandomFlip,
           pair.averaged, random=True, radius=HALF),
    honest("cnn-base-faint-barrage", "random transformation", BASE, 100,
           partial(randomised.Barrage, strength=0.01), pair.averaged, random=True, radius=HALF),
    honest("digits-robust-faint-noise", "input noise", "digits_robust", 100,
           partial(randomised.InputNoise, sigma=0.02), pair.averaged, random=True, radius=HALF),
    honest("cnn-pgd-logit-noise", "noisy logits", PGD_CNN, 100,
           partial(randomised.LogitNoise, sigma=0.3), pair.averaged, random=True),
    honest("digits-robust-logit-noise", "noisy logits", "digits_robust", 100,
           partial(randomised.LogitNoise, sigma=1.0), pair.averaged, random=True),
)  # fmt: skip
