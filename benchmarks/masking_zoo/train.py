"""Trains the digits' networks, each from its own seed, into the git-ignored cache.

`python -m benchmarks.masking_zoo.train` trains what is missing; `--fresh` all of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.masking_zoo import digits
from benchmarks.masking_zoo import digits_networks as more

CACHE = Path(__file__).parent / "cache"
EPS = 0.15
"""The radius of the digits, in ℓ∞."""

Recipe = Callable[[Tensor, Tensor], nn.Module]


def standard(images: Tensor, labels: Tensor) -> nn.Module:
    """Cross-entropy on clean images."""
    return digits.fit(digits.DigitsNet(), images, labels)


def another(images: Tensor, labels: Tensor) -> nn.Module:
    """The same from another seed: a second member of an ensemble."""
    return digits.fit(digits.DigitsNet(), images, labels)


def robust(images: Tensor, labels: Tensor) -> nn.Module:
    """PGD-7 examples at the audited radius."""
    examples = partial(digits.pgd_examples, eps=EPS, steps=7)
    return digits.fit(digits.DigitsNet(), images, labels, perturb=examples, epochs=40)


def distilled(images: Tensor, labels: Tensor) -> nn.Module:
    """Defensive distillation: a teacher and a student at a temperature that the test drops."""
    heat = digits.TEMPERATURE
    teacher = digits.fit(digits.DigitsNet(), images, labels, temperature=heat)
    with torch.no_grad():
        soft = torch.softmax(teacher(images) / heat, dim=1)
    return digits.fit(digits.DigitsNet(), images, soft, temperature=heat, epochs=40)


def collapsed(images: Tensor, labels: Tensor) -> nn.Module:
    """FGSM training with a full step too large: catastrophic overfitting (Wong et al. 2020)."""
    examples = partial(digits.fgsm_examples, eps=2 * EPS)
    return digits.fit(digits.DigitsNet(), images, labels, perturb=examples, epochs=60, rate=3e-3)


def kwta(images: Tensor, labels: Tensor) -> nn.Module:
    """k-winners-take-all, trained as it is tested."""
    return digits.fit(digits.KWinnersNet(), images, labels)


def kwta_robust(images: Tensor, labels: Tensor) -> nn.Module:
    """k-winners-take-all with PGD examples, as its paper recommends."""
    examples = partial(digits.pgd_examples, eps=EPS, steps=7)
    return digits.fit(digits.KWinnersNet(), images, labels, perturb=examples, epochs=40)


def thermometer(images: Tensor, labels: Tensor) -> nn.Module:
    """Trained on its hard codes; only the network behind them learns."""
    return digits.fit(digits.ThermometerNet(), images, labels)


def dropout(images: Tensor, labels: Tensor) -> nn.Module:
    """Dropout that stays on."""
    return digits.fit(digits.AlwaysDropout(), images, labels, epochs=40)


def with_examples(net: nn.Module, images: Tensor, labels: Tensor, epochs: int = 40) -> nn.Module:
    """Any network on PGD-7 examples at the audited radius."""
    examples = partial(digits.pgd_examples, eps=EPS, steps=7)
    return digits.fit(net, images, labels, perturb=examples, epochs=epochs)


def shuffled(images: Tensor, labels: Tensor) -> nn.Module:
    """Labels that have nothing to do with the images."""
    return digits.fit(digits.DigitsNet(), images, labels[torch.randperm(len(labels))], epochs=5)


def untrained(images: Tensor, labels: Tensor) -> nn.Module:
    """As it was drawn."""
    return digits.DigitsNet()


def denoiser(images: Tensor, labels: Tensor) -> nn.Module:
    """An autoencoder that takes noise away."""
    return more.fit_denoiser(more.Denoiser(), images, spread=0.15)


def clean_recipe(build: Callable[[], nn.Module], epochs: int = digits.EPOCHS) -> Recipe:
    """Cross-entropy on clean images, for any network."""
    return lambda images, labels: digits.fit(build(), images, labels, epochs=epochs)


def robust_recipe(build: Callable[[], nn.Module]) -> Recipe:
    """PGD examples, for any network."""
    return lambda images, labels: with_examples(build(), images, labels)


RECIPES: dict[str, Recipe] = {
    "digits": standard,
    "digits_2": another,
    "digits_robust": robust,
    "digits_distilled": distilled,
    "digits_collapsed": collapsed,
    "digits_kwta": kwta,
    "digits_kwta_robust": kwta_robust,
    "digits_thermometer": thermometer,
    "digits_dropout": dropout,
    "digits_kwta_mlp": clean_recipe(more.KWinnersMlp),
    "digits_kwta_half": robust_recipe(partial(digits.KWinnersNet, 0.5)),
    "digits_code16": clean_recipe(partial(more.CodeNet, 16)),
    "digits_code32_robust": robust_recipe(partial(more.CodeNet, 32)),
    "digits_ode": clean_recipe(partial(more.OdeNet, decay=4.0, steps=20), epochs=40),
    "digits_ode_robust": robust_recipe(more.OdeNet),
    "digits_pooled_robust": robust_recipe(more.PooledNet),
    "digits_smooth_robust": robust_recipe(more.SmoothNet),
    "digits_mlp_robust": robust_recipe(more.Mlp),
    "digits_parity": clean_recipe(partial(more.FewClasses, 2)),
    "digits_parity_robust": robust_recipe(partial(more.FewClasses, 2)),
    "digits_thirds_robust": robust_recipe(partial(more.FewClasses, 3)),
    "digits_shuffled": shuffled,
    "digits_untrained": untrained,
}
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "digits_kwta": digits.KWinnersNet,
    "digits_kwta_robust": digits.KWinnersNet,
    "digits_thermometer": digits.ThermometerNet,
    "digits_dropout": digits.AlwaysDropout,
    "digits_kwta_mlp": more.KWinnersMlp,
    "digits_kwta_half": partial(digits.KWinnersNet, 0.5),
    "digits_code16": partial(more.CodeNet, 16),
    "digits_code32_robust": partial(more.CodeNet, 32),
    "digits_ode": partial(more.OdeNet, decay=4.0, steps=20),
    "digits_ode_robust": more.OdeNet,
    "digits_pooled_robust": more.PooledNet,
    "digits_smooth_robust": more.SmoothNet,
    "digits_mlp_robust": more.Mlp,
    "digits_parity": partial(more.FewClasses, 2),
    "digits_parity_robust": partial(more.FewClasses, 2),
    "digits_thirds_robust": partial(more.FewClasses, 3),
    "digits_denoiser": more.Denoiser,
}
CLASSES = {"digits_parity": 2, "digits_parity_robust": 2, "digits_thirds_robust": 3}
"""Networks whose label is the digit modulo this."""

HELPERS: dict[str, Recipe] = {"digits_denoiser": denoiser}
"""What is trained too, and classifies nothing."""


def labels_of(name: str, labels: Tensor) -> Tensor:
    """What a network is asked: the digit, or its remainder."""
    return labels % CLASSES.get(name, 10)


def trained(name: str, fresh: bool = False) -> nn.Module:
    """A network from the cache, trained first if it is not there or `fresh` is asked."""
    file = CACHE / "weights" / f"{name}.safetensors"
    if fresh or not file.is_file():
        images, labels = digits.digits()
        seed = int.from_bytes(name.encode()[-4:], "big")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            n = digits.TRAINING_IMAGES
            net = (RECIPES | HELPERS)[name](images[:n], labels_of(name, labels)[:n])
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        save_file(net.state_dict(), str(part))
        part.replace(file)
    net = ARCHITECTURES.get(name, digits.DigitsNet)()
    net.load_state_dict(load_file(str(file)))
    return net.eval()


def train_all(fresh: bool = False) -> None:
    """Every recipe, with a line each: the clean accuracy on images that it never saw."""
    images, labels = digits.digits()
    images, labels = images[digits.TRAINING_IMAGES :], labels[digits.TRAINING_IMAGES :]
    for name in HELPERS:
        trained(name, fresh)
    for name in RECIPES:
        began = time.perf_counter()
        net = trained(name, fresh)
        with torch.no_grad():
            right = float((net(images).argmax(dim=1) == labels_of(name, labels)).float().mean())
        print(f"{name}: clean {right:.1%}; {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="train anew what is there")
    train_all(parser.parse_args().fresh)
