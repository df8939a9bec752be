"""Losses that saturate: their gradient vanishes where the network is confident."""

from __future__ import annotations

from functools import partial

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.defences import inputs, outputs
from benchmarks.masking_zoo.pairs.making import (
    FLAT,
    PGD_CNN,
    SATURATION,
    WIDE,
    defended,
    plain,
    scaled,
)

SATURATED = (
    *(
        defended(
            f"resnet20-x{factor:g}", "resnet20", 100, scaled(factor), "logit scaling", SATURATION,
            pair.bare,
        )
        for factor in (30.0, 100.0, 1000.0)
    ),
    defended("resnet56-x100", "resnet56", 60, scaled(100.0), "logit scaling", SATURATION,
             pair.bare),
    defended("demo-x100", networks.DEMO, 60, scaled(100.0), "logit scaling", SATURATION,
             pair.bare),
    defended("cnn-wide-x1000", WIDE, 200, scaled(1000.0), "logit scaling", SATURATION, pair.bare),
    defended("cnn-pgd-x300", PGD_CNN, 200, scaled(300.0), "logit scaling", SATURATION, pair.bare),
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
