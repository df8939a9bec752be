"""What a pair is, as a digest: models and stand-ins, data, budgets, and the code that labels it.

A label's digest holds every weight. The digest of a stored result holds the recipes in their place:
the same training gives other last bits on another machine, and is the same pair.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path

from torch import nn

from benchmarks.masking_zoo import train
from benchmarks.masking_zoo.pair import Pair

LABELLING = ("attacks.py", "deciding.py", "reference.py")
"""The code that every label comes from."""

RANDOMISED = "randomised_labels.py"
"""The code that the labels of randomised pairs come from as well."""


def of_label(pair: Pair, model: nn.Module) -> str:
    """Of everything that decides a label, weights included."""
    digest = hashlib.sha256()
    for module in _modules(pair, model):
        _add_module(digest, module)
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    _add_settings(digest, pair, model)
    images, labels = pair.data()
    digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    return digest.hexdigest()


def of_pair(pair: Pair, model: nn.Module) -> str:
    """Of everything that decides a label, but for the weights: the training stands for them."""
    digest = hashlib.sha256()
    for module in _modules(pair, model):
        _add_module(digest, module)
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
    _add_settings(digest, pair, model)
    recipe = train.RECIPES.get(pair.network)
    digest.update((pair.network if recipe is None else inspect.getsource(recipe)).encode())
    return digest.hexdigest()


def _modules(pair: Pair, model: nn.Module) -> list[nn.Module]:
    return [model, *(stand_in.module for stand_in in pair.stand_ins(model))]


def _add_settings(digest: hashlib._Hash, pair: Pair, model: nn.Module) -> None:
    settings = [(s.draws, s.smoothing) for s in pair.stand_ins(model)]
    digest.update(repr((pair.name, pair.n, pair.eps, pair.random, pair.budget, settings)).encode())
    sources = [*LABELLING, *([RANDOMISED] if pair.random else [])]
    for source in sources:
        text = Path(__file__).with_name(source).read_text("utf-8")
        digest.update(ast.dump(ast.parse(text)).encode())


def _add_module(digest: hashlib._Hash, module: nn.Module) -> None:
    for name, part in module.named_modules():
        kind = type(part)
        digest.update(f"{name} {kind.__qualname__} {part.extra_repr()}".encode())
        if "masking_zoo" in kind.__module__:
            numbers = {k: v for k, v in vars(part).items() if isinstance(v, int | float | str)}
            digest.update(inspect.getsource(kind).encode())
            for function in filter(inspect.isfunction, vars(part).values()):
                digest.update(inspect.getsource(function).encode())
            digest.update(repr(sorted(numbers.items())).encode())
