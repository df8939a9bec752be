"""Other kinds of preprocessing that are common, and the model's accuracy with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flatguard.checks.preflight.calls import Caller
from flatguard.checks.preflight.facts import TriedInput
from flatguard.execution.context import ModelAndData
from flatguard.runs.facts import FROM_PYTHON
from flatguard.targets.checkpoint import SUFFIXES
from flatguard.targets.normalized import Normalized

_COLOUR = (
    ("ImageNet's mean and std", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("CIFAR-10's mean and std", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    ("CIFAR-100's mean and std", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ("CLIP's mean and std", (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)),
)
_GREY = (("MNIST's mean and std", (0.1307,), (0.3081,)),)

_SCREENED = 32
"""Images that each preprocessing is tried on; the best are then tried on all."""
_BETTER = 3
"""So many more of them must be right."""
_CONFIRMED, _CLOSE = 3, 2
"""So many are tried on all, the most common first, of those that are nearly as good as the best."""


_LOUD = 0.01
"""A std below this one makes images more than a hundred times as large."""


@dataclass(frozen=True)
class InputMap:
    """A preprocessing: each channel's value minus `mean`, over `std`; perhaps channels reversed."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reversed: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """The images as the model would get them."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape)
        std = torch.tensor(self.std, device=images.device).view(shape)
        return ((images.flip(1) if self.reversed else images) - mean) / std


@dataclass(frozen=True)
class _Model:
    """The model without the normalisation that the request gave it.

    Attributes:
        inner: takes what an `InputMap` returns.
        own: the request's normalisation; None where it gave none.
        takes_mean: whether --mean and --std can be given for it.
    """

    inner: nn.Module
    own: InputMap | None
    takes_mean: bool

    @classmethod
    def of(cls, loaded: ModelAndData, model: nn.Module) -> _Model:
        named = loaded.target.source != FROM_PYTHON
        takes_mean = named and Path(loaded.request.model).suffix in SUFFIXES
        if not isinstance(model, Normalized):
            return cls(model, None, takes_mean)
        mean, std = (tuple(float(v) for v in t.flatten()) for t in (model.mean, model.std))
        return cls(model.model, InputMap("", mean, std), takes_mean)


def try_inputs(
    loaded: ModelAndData,
    caller: Caller,
    images: Tensor,
    labels: Tensor,
    own: Tensor,
    thorough: bool,
    random: bool,
) -> tuple[TriedInput, ...]:
    """Try other kinds of preprocessing: each on some images, the best of them on all.

    Args:
        loaded: the model and data.
        caller: calls the model.
        images: clean images that are spread over the data.
        labels: of them.
        own: which of them the model classifies right as it is.
        thorough: also try BGR channels with each of the others.
        random: the model's answers are random. Images of 255 times the size drown the noise of a
            random model, so that they are no explanation.
    """
    model = _Model.of(loaded, caller.model)
    few = torch.linspace(0, len(images) - 1, min(_SCREENED, len(images))).round().long()
    found = []
    for each in _candidates(images.shape[1], model.own, thorough):
        if random and min(map(abs, each.std)) < _LOUD:
            continue
        gain = 0
        for part in (few[::2], few[1::2]):
            right = _right(caller, model.inner, each.apply(images[part]), labels[part])
            gain += int(right.sum()) - int(own[part].sum())
            if gain < 0:  # the other half is not needed
                break
        if gain >= _BETTER:
            found.append((gain, each))
    most = max((gain for gain, _ in found), default=0)
    best = [pair for pair in found if pair[0] >= most - _CLOSE][:_CONFIRMED]
    return tuple(
        _result(
            each,
            _how(each, model),
            _right(caller, model.inner, each.apply(images), labels),
            own,
        )
        for _, each in best
    )


def _right(caller: Caller, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return caller.logits(images, model=model).argmax(dim=1).cpu() == labels


def _result(each: InputMap, how: str, right: Tensor, own: Tensor) -> TriedInput:
    return TriedInput(
        name=each.name,
        how=how,
        correct=int(right.sum()),
        own=int(own.sum()),
        gained=int((right & ~own).sum()),
        lost=int((own & ~right).sum()),
        images=len(own),
    )


def _candidates(channels: int, own: InputMap | None, thorough: bool) -> Iterator[InputMap]:
    """All that are tried, the most common first; the model's own is not among them."""
    plain = InputMap("no normalisation", (0.0,) * channels, (1.0,) * channels)
    base = list(_common(channels))
    first = [*([plain] if own is not None else []), *base]
    if channels == 3:
        mine = own or plain
        first.append(InputMap("BGR channels", mine.mean, mine.std, reversed=True))
    yield from first
    yield InputMap("inverted colours", (1.0,) * channels, (-1.0,) * channels)
    if own is None:
        yield from (_undone(each) for each in base)
    if thorough and channels == 3:
        for each in base:
            yield InputMap(f"BGR channels and {each.name}", each.mean, each.std, reversed=True)
        caffe = tuple(value / 255 for value in (103.939, 116.779, 123.68))
        yield InputMap("Caffe's BGR in [0, 255] less the mean", caffe, (1 / 255,) * 3, True)


def _common(channels: int) -> Iterator[InputMap]:
    known: Sequence[tuple[str, tuple[float, ...], tuple[float, ...]]]
    known = {3: _COLOUR, 1: _GREY}.get(channels, ())
    for name, mean, std in known:
        yield InputMap(name, mean, std)
    yield InputMap("images in [-1, 1]", (0.5,) * channels, (0.5,) * channels)
    yield InputMap("images in [0, 255]", (0.0,) * channels, (1 / 255,) * channels)


def _undone(each: InputMap) -> InputMap:
    """Undo a normalisation in front of a model that does it itself, once too often."""
    mean = tuple(-m / s for m, s in zip(each.mean, each.std, strict=True))
    return InputMap(f"{each.name} undone", mean, tuple(1 / s for s in each.std))


def _how(each: InputMap, model: _Model) -> str:
    """What to do to have this preprocessing, as `with ...` or `without ...`."""
    plain = all(m == 0 and s == 1 for m, s in zip(each.mean, each.std, strict=True))
    if each.reversed:
        return f"with {each.name}"
    if plain:
        return "without --mean and --std" if model.takes_mean else "without the normalisation"
    if each.name.endswith(" undone"):
        name = each.name.removesuffix(" undone")
        return f"with one normalisation less ({name}, which the model seems to do twice)"
    if model.takes_mean:
        return f"with --mean {_numbers(each.mean)} --std {_numbers(each.std)} ({each.name})"
    numbers = f"mean {_numbers(each.mean)} and std {_numbers(each.std)}"
    return f"with {each.name} ({numbers} before the model)"


def _numbers(values: Sequence[float]) -> str:
    """As `--mean` takes them: .485,.456,.406."""
    texts = (f"{value:.6g}" for value in values)
    return ",".join(text[1:] if text.startswith("0.") else text for text in texts)
