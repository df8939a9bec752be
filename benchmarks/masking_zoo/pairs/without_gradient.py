"""Stages without a gradient, or with a wrong one."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.defences import inputs, outputs
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    LYING,
    PGD_CNN,
    UNAVAILABLE,
    WIDE,
    bits,
    defended,
    plain,
)


def vote(net: nn.Module) -> nn.Module:
    """The network and the two other small ones."""
    return outputs.Vote([net, *(networks.load(name).module for name in (BASE, PGD_CNN))])


WITHOUT_GRADIENT = (
    defended("resnet20-round3", "resnet20", 100, bits(inputs.RoundedBits, 3), "bit depth",
             UNAVAILABLE, pair.straight),
    defended("resnet56-floor3", "resnet56", 60, bits(inputs.FlooredBits, 3), "bit depth",
             UNAVAILABLE, pair.straight),
    defended("demo-quantised3", networks.DEMO, 60, bits(inputs.Quantised, 3), "custom backward",
             UNAVAILABLE, pair.straight),
    defended("cnn-wide-round4", WIDE, 200, bits(inputs.RoundedBits, 4), "bit depth", UNAVAILABLE,
             pair.straight),
    defended("cnn-base-floor4", BASE, 200, bits(inputs.FlooredBits, 4), "bit depth", UNAVAILABLE,
             pair.straight),
    defended("cnn-pgd-quantised4", PGD_CNN, 200, bits(inputs.Quantised, 4), "custom backward",
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
