"""Losses with small, fast bumps, whose gradients are true and of no use."""

from __future__ import annotations

from functools import partial
from math import pi

from benchmarks.masking_zoo import pair
from benchmarks.masking_zoo.defences import inputs, outputs
from benchmarks.masking_zoo.pairs.making import PGD_CNN, RUGGED, WIDE, defended, plain

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
