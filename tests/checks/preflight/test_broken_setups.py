"""Preflight names the cause of each broken set-up, and nothing in the same set-up repaired."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import broken
from support.broken import Around, SetUp
from support.preflight import tried
from torch import Tensor, nn

from flatguard.targets.normalized import Normalized

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Numbers = tuple[tuple[float, ...], tuple[float, ...]]
ORDER = torch.tensor([3, 7, 0, 9, 5, 1, 8, 2, 4, 6])


@dataclass(frozen=True)
class Broken:
    """How a set-up is broken, the check that names it, what it says, and how it is repaired."""

    name: str
    breaks: Callable[[SetUp], SetUp]
    check: str
    text: str
    repairs: Callable[[SetUp], SetUp]


def _model(change: Callable[[nn.Module], nn.Module]) -> Callable[[SetUp], SetUp]:
    return lambda good: replace(good, model=change(good.model))


def _before(change: Callable[[Tensor], Tensor]) -> Callable[[SetUp], SetUp]:
    return _model(lambda net: Around(net, before=change))


def _after(change: Callable[[Tensor], Tensor]) -> Callable[[SetUp], SetUp]:
    return _model(lambda net: Around(net, after=change))


def _labels(change: Callable[[Tensor], Tensor]) -> Callable[[SetUp], SetUp]:
    return lambda good: replace(good, labels=change(good.labels))


def _unnormalise(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """What a network that expects normalised images does to them first."""
    m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return lambda x: x * s + m


def _normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return lambda x: (x - m) / s


def _some(good: SetUp, rows: Tensor) -> SetUp:
    return SetUp(good.model, good.images[rows], good.labels[rows])


def _wiped(net: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def _upper_half(good: SetUp) -> SetUp:
    """Only the classes 5 to 9, numbered from 0."""
    rows = good.labels >= 5
    return SetUp(good.model, good.images[rows], good.labels[rows] - 5)


def _of_hundred(good: SetUp, numbers: Tensor) -> SetUp:
    """The model answers 100 classes, of which the images show ten; `numbers` labels them."""

    def hundred(z: Tensor) -> Tensor:
        all_of_them = z.min(dim=1, keepdim=True).values - torch.ones(100)
        return all_of_them.index_copy(1, MANY, z)

    return SetUp(Around(good.model, after=hundred), good.images, numbers[good.labels])


def _wrong_order(name: str, order: Tensor, text: str) -> Broken:
    """The labels are in another order; repaired, the model's outputs are in that order too."""

    def repaired(good: SetUp) -> SetUp:
        ordered = Around(good.model, after=lambda z: z[:, order.argsort()])
        return SetUp(ordered, good.images, order[good.labels])

    return Broken(name, _labels(lambda y: order[y]), "clean-accuracy", text, repaired)


def _two_images(good: SetUp) -> SetUp:
    """Of two classes."""
    return _some(good, torch.tensor([int((good.labels == k).nonzero()[0]) for k in (3, 8)]))


def _same(good: SetUp) -> SetUp:
    return good


TEN = torch.arange(10)
MANY = torch.tensor([0, 17, 31, 42, 48, 53, 66, 71, 90, 97])
ACCURACY = [
    _wrong_order("labels too high", (TEN + 1) % 10, "one too high"),
    _wrong_order("labels too low", (TEN - 1) % 10, "one too low"),
    _wrong_order("labels too low by 3", (TEN - 3) % 10, "3 too low"),
    _wrong_order("reversed", 9 - TEN, "reverse order"),
    _wrong_order("other order", ORDER, "in another order"),
    _wrong_order("swapped pairs", torch.tensor([0, 7, 2, 8, 4, 5, 6, 1, 3, 9]), "1 → 7"),
    _wrong_order("two swapped", torch.tensor([0, 1, 2, 5, 4, 3, 6, 7, 8, 9]), "3 → 5, 5 → 3"),
    _wrong_order("three in a circle", torch.tensor([0, 1, 4, 3, 6, 5, 2, 7, 8, 9]), "2 → 6"),
    _wrong_order("text order", torch.tensor([0, 2, 3, 4, 5, 6, 7, 8, 9, 1]), "order of text"),
    Broken("a subset's own numbers", _upper_half, "clean-accuracy", "5 too low",
           lambda good: _some(good, good.labels >= 5)),
    Broken("ten of a hundred", lambda good: _of_hundred(good, TEN), "clean-accuracy", "1 → 17",
           lambda good: _of_hundred(good, MANY)),
    Broken("no weights", _model(_wiped), "clean-accuracy", "no robustness to judge", _same),
    Broken("one class", lambda good: _some(good, good.labels == 3), "clean-accuracy", "one label",
           lambda good: _some(good, (good.labels == 3) | (good.labels == 8))),
    Broken("too few", _two_images, "clean-accuracy", "so few images",
           lambda good: _some(good, torch.arange(40))),
]  # fmt: skip
CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))


def _normalised(
    numbers: Numbers, *, wanted: int, done: int, wraps: bool = False
) -> Callable[[SetUp], SetUp]:
    """A network that wants images that are normalised so often, behind so many normalisations."""

    def change(net: nn.Module) -> nn.Module:
        if done > 1 or wraps:
            net = Around(net, before=lambda x: (0.99 * x) % 1)
        for _ in range(wanted):
            net = Around(net, before=_unnormalise(*numbers))
        for _ in range(done):
            net = Around(net, before=_normalise(*numbers))
        return net

    return _model(change)


def _lacks(name: str, numbers: Numbers, text: str) -> Broken:
    return Broken(name, _normalised(numbers, wanted=1, done=0), "clean-accuracy", text,
                  _normalised(numbers, wanted=1, done=1))  # fmt: skip


def _twice(name: str, numbers: Numbers, text: str) -> Broken:
    return Broken(name, _normalised(numbers, wanted=1, done=2), "clean-accuracy", text,
                  _normalised(numbers, wanted=1, done=1, wraps=True))  # fmt: skip


INPUTS = [
    Broken("wants [0, 255]", _before(lambda x: x / 255), "clean-accuracy", "[0, 255]",
           _before(lambda x: x * 255 / 255)),
    _lacks("wants ImageNet's", IMAGENET, "mean .485,.456,.406 and std .229,.224,.225"),
    _lacks("wants CIFAR's", CIFAR, "CIFAR-10's mean and std"),
    _twice("ImageNet's twice", IMAGENET, "one normalisation less"),
    Broken("wants BGR", _before(lambda x: x.flip(1)), "clean-accuracy", "BGR",
           _before(lambda x: x.flip(1).flip(1))),
    Broken("normalises twice", _model(lambda net: Normalized(net, (2.0,) * 3, (0.1,) * 3)),
           "clean-accuracy", "without the normalisation",
           _model(lambda net: Normalized(Around(net, before=_unnormalise((2.0,) * 3, (0.1,) * 3)),
                                         (2.0,) * 3, (0.1,) * 3))),
    Broken("wants BGR in [0, 255]", _before(lambda x: x.flip(1) / 255), "clean-accuracy",
           "BGR channels and images in [0, 255]", _before(lambda x: x * 255 / 255)),
    Broken("inverted", _before(lambda x: 1 - x), "clean-accuracy", "inverted colours",
           _before(lambda x: 1 - (1 - x))),
    Broken("divided by 255 twice", lambda good: replace(good, images=good.images / 255),
           "clean-accuracy", "divided by 255 twice", _same),
]  # fmt: skip


def _less_the_group(size: int) -> Callable[[Tensor], Tensor]:
    """Centre the logits by those of so many neighbours."""
    return lambda z: torch.cat([part - 0.5 * part.mean(dim=0) for part in z.split(size)])


CALLS = [
    Broken("noise", _after(lambda z: z + torch.randn_like(z)), "determinism", "is random",
           _after(lambda z: z + 0.1 * torch.sin(TEN))),
    Broken("dropout", _model(broken.DropoutLeftOn), "determinism", "dropout",
           _model(broken.DropoutOff)),
    Broken("own generator", _model(broken.OwnGenerator), "determinism", "generator of its own",
           _model(broken.OwnGeneratorSeeded)),
    Broken("numpy's noise", _after(lambda z: z + float(np.random.randn()) * TEN), "determinism",
           "is random", _after(lambda z: z + 0.1 * float(np.random.RandomState(0).randn()) * TEN)),
    Broken("batch mean", _after(lambda z: z - z.mean(dim=0)), "batch-dependence", "beside other",
           _after(lambda z: z - z.mean(dim=1, keepdim=True))),
    Broken("softmax of the batch", _after(lambda z: z.softmax(dim=0)), "batch-dependence",
           "beside other", _after(lambda z: z.log_softmax(dim=1))),
    Broken("centred by the batch", _before(lambda x: x - x.mean()), "batch-dependence",
           "beside other", _before(lambda x: x - x.mean((1, 2, 3), keepdim=True))),
    Broken("batch norm", _model(broken.BatchNormLeftOn), "batch-dependence",
           "batch normalisation is in training mode", _model(broken.BatchNormOff)),
    Broken("batch size", _after(lambda z: z + len(z) * TEN / 9), "batch-dependence",
           "smaller batch", _after(lambda z: z + TEN / 9)),
    Broken("place in the batch", _after(lambda z: z + torch.arange(len(z))[:, None] * TEN / 30),
           "batch-dependence", "beside other", _after(lambda z: z + TEN / 30)),
    *(Broken(f"statistics of groups of {size}", _after(_less_the_group(size)), "batch-dependence",
             "beside other", _after(lambda z: z - z.mean(dim=1, keepdim=True)))
      for size in (2, 8, 16)),
    Broken("other when alone", _after(lambda z: z if len(z) > 1 else z.flip(1)),
           "batch-dependence", "smaller batch", _after(lambda z: z if len(z) > 1 else z * 1)),
    Broken("other in large batches", _after(lambda z: z if len(z) < 40 else z.roll(1, dims=1)),
           "batch-dependence", "smaller batch", _after(lambda z: z if len(z) < 40 else z * 1)),
    Broken("squeeze", _after(lambda z: z.squeeze()), "batch-dependence", "single image",
           _after(lambda z: z[:, :, None].squeeze(-1))),
    Broken("drifts", _model(broken.Drifts), "earlier-calls", "shown again",
           _model(broken.CountsOnly)),
    Broken("every second", _model(broken.EverySecond), "earlier-calls", "shown again",
           _model(broken.CountsOnly)),
    Broken("tires", _model(broken.TiresSoon), "earlier-calls", "earlier calls",
           _model(broken.CountsOnly)),
    Broken("tires for all", _model(broken.TiresForAll), "earlier-calls", "shown again",
           _model(broken.CountsOnly)),
    Broken("locks", _model(broken.Locks), "earlier-calls", "near to those",
           _model(broken.KeepsAnswers)),
    Broken("averages", _model(broken.Averages), "earlier-calls", "shown again",
           _model(broken.KeepsAnswers)),
    Broken("writes", _before(lambda x: x.mul_(1.0001)), "input-writes", "writes into",
           _before(lambda x: x.mul(1.0001))),
    Broken("clamps", _before(lambda x: x.clamp_(0.1, 0.9)), "input-writes", "writes into",
           _before(lambda x: x.clamp(0.1, 0.9))),
    Broken("adds", _before(lambda x: x.add_(0.01)), "input-writes", "writes into",
           _before(lambda x: x.clone().add_(0.01))),
    Broken("erases", _before(lambda x: x.index_fill_(3, torch.tensor([0]), 0.3)), "input-writes",
           "writes into", _before(lambda x: x.index_fill(3, torch.tensor([0]), 0.3))),
    Broken("trains itself", _model(broken.TrainsItself), "model-changes", "training mode",
           _model(broken.Wrapped)),
    Broken("statistics", _model(broken.BatchNormLeftOn), "model-changes", "running_mean",
           _model(broken.BatchNormOff)),
    Broken("counts", _model(broken.CountsInABuffer), "model-changes", "values of seen",
           _model(broken.CountsOnly)),
    Broken("moves", _model(broken.MovesItsWeights), "model-changes", "values of net.0.weight",
           _model(broken.Wrapped)),
]  # fmt: skip
OUTPUTS = [
    Broken("percent", _after(lambda z: 100 * z.softmax(1)), "output", "probabilities, not logits",
           _after(lambda z: 100 * z.log_softmax(1))),
    Broken("clipped log", _after(lambda z: z.softmax(1).clamp_min(1e-6).log()), "output",
           "clipped below at -13.8", _after(lambda z: z.log_softmax(1))),
    Broken("all but one", _after(lambda z: -F.one_hot(z.argmin(1), 10).float()), "output",
           "a decision only", _after(lambda z: z - 0 * F.one_hot(z.argmin(1), 10))),
    Broken("noise with gradients", _model(broken.NoiseWithGradients), "input-gradient",
           "computes otherwise for an attack", _same),
    Broken("other with gradients", _after(lambda z: z.flip(1) if z.requires_grad else z),
           "input-gradient", "32 of 32 decisions change",
           _after(lambda z: z * 1 if z.requires_grad else z)),
    Broken("softmax", _after(lambda z: z.softmax(1)), "output", "probabilities, not logits",
           _after(lambda z: z.log_softmax(1))),
    Broken("sigmoid", _after(torch.sigmoid), "output", "sigmoid", _after(F.logsigmoid)),
    Broken("clamp", _after(lambda z: z.clamp(-3, 3)), "output", "clipped below at -3 and above",
           _after(lambda z: z.clamp(-300, 300))),
    Broken("relu", _after(F.relu), "output", "clipped below at 0", _after(F.softplus)),
    Broken("relu6", _after(F.relu6), "output", "clipped below at 0", _after(lambda z: z / 6)),
    Broken("decision", _after(lambda z: F.one_hot(z.argmax(1), 10).float()), "output", "decision",
           _after(lambda z: z + 3 * F.one_hot(z.argmax(1), 10))),
    Broken("constant", _after(lambda z: 0 * z + TEN), "output", "same for all",
           _after(lambda z: z + 0 * TEN)),
    Broken("detached", _before(lambda x: x.detach()), "input-gradient", "leaves torch's graph",
           _before(lambda x: x + 0 * x.detach())),
    Broken("rounded", _before(lambda x: (x * 16).round() / 16), "input-gradient",
           "zero everywhere", _before(lambda x: x + ((x * 16).round() / 16 - x).detach())),
    Broken("whole numbers", _before(lambda x: (x * 255).long().float() / 255), "input-gradient",
           "leaves torch's graph", _before(lambda x: x * 255 / 255)),
    Broken("root", _model(broken.RootOfZero), "input-gradient", "not finite",
           _before(lambda x: x + 0.0 * (x.square() + 1e-6).sqrt())),
    Broken("no_grad", _model(lambda net: Around(net, after=torch.no_grad()(lambda z: z + 0))),
           "input-gradient", "leaves torch's graph",
           _model(lambda net: Around(net, after=torch.enable_grad()(lambda z: z + 0)))),
]  # fmt: skip
ALL = [*ACCURACY, *INPUTS, *CALLS, *OUTPUTS]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_cause_is_named(case: Broken, good: SetUp) -> None:
    found = tried(case.breaks(good))
    (finding,) = (f for f in found.findings if f.check == case.check)
    assert finding.status in ("warn", "fail"), finding
    assert case.text in finding.summary
    assert finding.next
    assert found.exit_code == (3 if case.check == "clean-accuracy" else found.exit_code)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_nothing_is_named_where_it_is_repaired(case: Broken, good: SetUp) -> None:
    found = tried(case.repairs(good))
    assert {finding.status for finding in found.findings} == {"pass"}, found.findings
    assert found.exit_code == 0


def test_an_honest_random_model_is_only_said_to_be_random(good: SetUp) -> None:
    """Nothing but determinism is named, wherever its random numbers come from."""
    for breaks in (case.breaks for case in CALLS if case.text.startswith(("random", "generator"))):
        found = tried(breaks(good))
        named = {f.check: f.status for f in found.findings if f.status != "pass"}
        assert named == {"determinism": "warn"}, found.findings
        assert found.exit_code == 0
