"""Networks that nothing should mask, and harmless changes to them."""

from __future__ import annotations

from functools import partial

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.defences import inputs, outputs, randomised
from benchmarks.masking_zoo.pairs.making import BASE, HALF, PGD_CNN, WIDE, bits, honest, scaled

HONEST = (
    honest("resnet20", "undefended", "resnet20", 100),
    honest(
        "resnet20-temperature",
        "temperature",
        "resnet20",
        100,
        partial(outputs.Temperature, temperature=2.0),
    ),
    honest(
        "resnet20-probabilities", "probabilities", "resnet20", 100, outputs.Probabilities, pair.bare
    ),
    honest(
        "resnet20-smooth-rounding", "bit depth", "resnet20", 100, bits(inputs.SmoothRounding, 6)
    ),
    honest(
        "resnet20-jpeg-straight", "JPEG", "resnet20", 200, partial(inputs.HonestJpeg, quality=75)
    ),
    honest(
        "resnet20-slow-ripple",
        "ripple",
        "resnet20",
        100,
        partial(inputs.Ripple, height=0.008, frequency=160.0),
        pair.smoothed,
    ),
    honest(
        "resnet20-faint-noise",
        "input noise",
        "resnet20",
        80,
        partial(randomised.InputNoise, sigma=0.01),
        pair.averaged,
        random=True,
    ),
    honest(
        "resnet20-resize-pad",
        "resize and pad",
        "resnet20",
        80,
        partial(randomised.RandomResizePad, smallest=28),
        pair.averaged,
        random=True,
    ),
    honest("resnet56", "undefended", "resnet56", 80),
    honest("demo", "undefended", networks.DEMO, 80),
    honest("rsfgsm", "adversarial training", "resnet20_rsfgsm", 200),
    honest("rsfgsm-half", "adversarial training", "resnet20_rsfgsm", 200, radius=HALF),
    honest("cnn-wide", "certified training", WIDE, 300),
    honest("cnn-wide-x30", "logit scaling", WIDE, 300, scaled(30.0), pair.bare),
    honest("cnn-wide-probabilities", "probabilities", WIDE, 300, outputs.Probabilities, pair.bare),
    honest("cnn-base", "certified training", BASE, 300),
    honest("cnn-base-half", "certified training", BASE, 300, radius=HALF),
    honest("cnn-pgd", "adversarial training", PGD_CNN, 300),
    honest("cnn-pgd-half", "adversarial training", PGD_CNN, 300, radius=HALF),
    honest(
        "cnn-pgd-half-temperature",
        "temperature",
        PGD_CNN,
        300,
        partial(outputs.Temperature, temperature=0.5),
        radius=HALF,
    ),
    honest("digits", "undefended", "digits", 200),
    honest(
        "digits-temperature",
        "temperature",
        "digits",
        200,
        partial(outputs.Temperature, temperature=3.0),
    ),
    honest("digits-robust", "adversarial training", "digits_robust", 300),
    honest("digits-robust-half", "adversarial training", "digits_robust", 200, radius=HALF),
    honest(
        "digits-robust-half-probabilities",
        "probabilities",
        "digits_robust",
        200,
        outputs.Probabilities,
        pair.bare,
        radius=HALF,
    ),
)
