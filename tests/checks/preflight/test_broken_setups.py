"""Preflight names the cause of each broken set-up, and nothing in the same set-up repaired."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from support import broken
from support.broken import Around, SetUp
from torch import Tensor, nn

from flatguard.checks.preflight.judged import Preflight, preflight
from flatguard.data.arrays import ArrayDataset
from flatguard.execution.context import load_model_and_data
from flatguard.request import make_request
from flatguard.targets.target import Normalized, make_target

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ORDER = torch.tensor([3, 7, 0, 9, 5, 1, 8, 2, 4, 6])


@dataclass(frozen=True)
class Broken:
    """How a set-up is broken, the check that names it, and what it says."""

    name: str
    breaks: Callable[[SetUp], SetUp]
    check: str
    text: str
    repairs: Callable[[SetUp], SetUp] = lambda good: good


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


def _some(good: SetUp, rows: Tensor) -> SetUp:
    return SetUp(good.model, good.images[rows], good.labels[rows])


def _wiped(net: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def _upper_half(good: SetUp) -> SetUp:
    """Only the classes 5 to 9, numbered from 0."""
    rows = good.labels >= 5
    return SetUp(good.model, good.images[rows], good.labels[rows] - 5)


def _swap(labels: Tensor) -> Tensor:
    swapped = labels.clone()
    swapped[labels == 3], swapped[labels == 8] = 8, 3
    return torch.where(labels == 1, 7, torch.where(labels == 7, 1, swapped))


ACCURACY = [
    Broken("labels too high", _labels(lambda y: (y + 1) % 10), "clean-accuracy", "one too high"),
    Broken("labels too low", _labels(lambda y: (y - 1) % 10), "clean-accuracy", "one too low"),
    Broken("labels too low by 3", _labels(lambda y: (y - 3) % 10), "clean-accuracy", "3 too low"),
    Broken("reversed", _labels(lambda y: 9 - y), "clean-accuracy", "reverse order"),
    Broken("other order", _labels(lambda y: ORDER[y]), "clean-accuracy", "in another order"),
    Broken("swapped pairs", _labels(_swap), "clean-accuracy", "1 → 7"),
    Broken("text order", _labels(lambda y: torch.tensor([0, 2, 3, 4, 5, 6, 7, 8, 9, 1])[y]),
           "clean-accuracy", "order of text"),
    Broken("a subset's own numbers", _upper_half, "clean-accuracy", "5 too low",
           lambda good: _some(good, good.labels >= 5)),
    Broken("no weights", _model(_wiped), "clean-accuracy", "no robustness to judge"),
    Broken("one class", lambda good: _some(good, good.labels == 3), "clean-accuracy", "one label"),
    Broken("too few", lambda good: _some(good, torch.arange(1)), "clean-accuracy", "one label"),
]  # fmt: skip
INPUTS = [
    Broken("wants [0, 255]", _before(lambda x: x / 255), "clean-accuracy", "[0, 255]",
           _before(lambda x: x * 255 / 255)),
    Broken("wants ImageNet's", _before(_unnormalise(*IMAGENET)), "clean-accuracy",
           "mean .485,.456,.406 and std .229,.224,.225",
           _model(lambda net: Normalized(Around(net, before=_unnormalise(*IMAGENET)), *IMAGENET))),
    Broken("wants BGR", _before(lambda x: x.flip(1)), "clean-accuracy", "BGR"),
    Broken("normalises twice",
           _model(lambda net: Normalized(net, (2.0,) * 3, (0.1,) * 3)),
           "clean-accuracy", "without the normalisation"),
    Broken("wants BGR in [0, 255]", _before(lambda x: x.flip(1) / 255), "clean-accuracy",
           "BGR channels and images in [0, 255]"),
    Broken("inverted", _before(lambda x: 1 - x), "clean-accuracy", "inverted colours"),
    Broken("divided by 255 twice", lambda good: replace(good, images=good.images / 255),
           "clean-accuracy", "divided by 255 twice"),
]  # fmt: skip
CALLS = [
    Broken("noise", _after(lambda z: z + torch.randn_like(z)), "determinism", "randomised"),
    Broken("dropout", _model(broken.DropoutLeftOn), "determinism", "dropout"),
    Broken("own generator", _model(broken.OwnGenerator), "determinism", "generator of its own"),
    Broken("batch mean", _after(lambda z: z - z.mean(dim=0)), "batch-dependence", "beside other"),
    Broken("softmax of the batch", _after(lambda z: z.softmax(dim=0)), "batch-dependence",
           "beside other"),
    Broken("batch norm", _model(broken.BatchNormLeftOn), "batch-dependence",
           "batch normalisation computes as in training"),
    Broken("batch size", _after(lambda z: z + len(z) * torch.arange(10) / 9), "batch-dependence",
           "smaller batch"),
    Broken("squeeze", _after(lambda z: z.squeeze()), "batch-dependence", "single image"),
    Broken("drifts", _model(broken.Drifts), "earlier-calls", "shown again"),
    Broken("every second", _model(broken.EverySecond), "earlier-calls", "shown again"),
    Broken("tires", _model(broken.TiresSoon), "earlier-calls", "earlier calls"),
    Broken("locks", _model(broken.Locks), "earlier-calls", "near to those"),
    Broken("writes", _before(lambda x: x.mul_(1.0001)), "input-writes", "writes into"),
    Broken("clamps", _before(lambda x: x.clamp_(0.1, 0.9)), "input-writes", "writes into"),
    Broken("erases", _before(lambda x: x.index_fill_(3, torch.tensor([0]), 0.3)), "input-writes",
           "writes into"),
    Broken("trains itself", _model(broken.TrainsItself), "model-changes", "training mode"),
    Broken("statistics", _model(broken.BatchNormLeftOn), "model-changes", "running_mean"),
    Broken("counts", _model(broken.CountsInABuffer), "model-changes", "values of seen"),
    Broken("moves", _model(broken.MovesItsWeights), "model-changes", "values of net.0.weight"),
]  # fmt: skip
OUTPUTS = [
    Broken("softmax", _after(lambda z: z.softmax(1)), "output", "probabilities, not logits"),
    Broken("sigmoid", _after(torch.sigmoid), "output", "sigmoid"),
    Broken("clamp", _after(lambda z: z.clamp(-3, 3)), "output", "clipped below at -3 and above"),
    Broken("relu", _after(F.relu), "output", "clipped below at 0"),
    Broken("decision", _after(lambda z: F.one_hot(z.argmax(1), 10).float()), "output", "decision"),
    Broken("constant", _after(lambda z: 0 * z + torch.arange(10)), "output", "same for all"),
    Broken("detached", _before(lambda x: x.detach()), "input-gradient", "leaves torch's graph"),
    Broken("rounded", _before(lambda x: (x * 16).round() / 16), "input-gradient",
           "zero everywhere"),
    Broken("root", _model(broken.RootOfZero), "input-gradient", "not finite"),
    Broken("no_grad", _model(lambda net: Around(net, after=torch.no_grad()(lambda z: z + 0))),
           "input-gradient", "leaves torch's graph"),
]  # fmt: skip
ALL = [*ACCURACY, *INPUTS, *CALLS, *OUTPUTS]


@pytest.fixture(scope="module")
def good() -> SetUp:
    return broken.honest()


def tried(made: SetUp, **options: object) -> Preflight:
    target = make_target(made.model, "net", "a test")
    dataset = ArrayDataset(made.images, made.labels.numpy(), "images")
    request = make_request(model="net", attack="torchattacks:PGD", dataset="images", **options)
    return preflight(load_model_and_data(request, None, target, dataset))


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_cause_is_named(case: Broken, good: SetUp) -> None:
    found = tried(case.breaks(good))
    (finding,) = (f for f in found.findings if f.check == case.check)
    assert finding.status in ("warn", "fail"), finding
    assert case.text in finding.summary
    assert finding.next
    assert found.exit_code == (3 if case.check == "clean-accuracy" else found.exit_code)


REPAIRED = [case for case in ALL if case.repairs is not Broken.repairs]


@pytest.mark.parametrize("case", REPAIRED, ids=lambda case: case.name)
def test_nothing_is_named_where_it_is_repaired(case: Broken, good: SetUp) -> None:
    found = tried(case.repairs(good))
    assert {finding.status for finding in found.findings} == {"pass"}, found.findings
    assert found.exit_code == 0
