"""Preflight is silent on real, honest models, and says what is wrong with their inputs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.architectures import cnn, cnn_wide, resnet20, resnet56
from support.broken import Around
from torch import Tensor, nn

from flatguard.checks.preflight.judged import Preflight, preflight
from flatguard.data import load_dataset
from flatguard.execution.context import load_model_and_data
from flatguard.request import make_request
from flatguard.targets.normalized import Normalized
from flatguard.targets.target import make_target

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EVEN = ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
Numbers = tuple[tuple[float, ...], tuple[float, ...]]
MODELS: dict[str, tuple[Callable[[], nn.Module], Numbers]] = {
    "resnet20_standard": (resnet20, IMAGENET),
    "resnet56_standard": (resnet56, IMAGENET),
    "resnet20_rsfgsm_8_255": (resnet20, IMAGENET),
    "cnn_base_certified_2_255": (lambda: cnn(8, 16, 1024), EVEN),
    "cnn_wide_certified_2_255": (cnn_wide, EVEN),
    "cnn_a_pgd_2_255": (cnn_wide, CIFAR),
}


def tried(real: Path, name: str, numbers: Numbers | None) -> Preflight:
    return asked(real, trained(real, name, numbers))


def trained(real: Path, name: str, numbers: Numbers | None) -> nn.Module:
    net = MODELS[name][0]()
    net.load_state_dict(load_file(real / "checkpoints" / f"cifar10_{name}.safetensors"))
    return net if numbers is None else Normalized(net, *numbers)


def asked(real: Path, model: nn.Module) -> Preflight:
    data = load_dataset(str(real / "cifar10_test_first1000.npz"))
    request = make_request(model="net", attack="torchattacks:PGD", n_examples=1000)
    return preflight(load_model_and_data(request, None, make_target(model, "net", "a file"), data))


@pytest.mark.parametrize("name", MODELS)
def test_an_honest_model_is_passed_in_silence(name: str, real: Path) -> None:
    found = tried(real, name, MODELS[name][1])
    assert {finding.status for finding in found.findings} == {"pass"}, found.findings
    assert found.exit_code == 0
    assert found.facts.forwards <= 700


def test_the_demo_is_passed_in_silence() -> None:
    found = preflight(load_model_and_data(make_request(model="demo", attack="torchattacks:PGD")))
    assert {finding.status for finding in found.findings} == {"pass"}, found.findings


@pytest.mark.parametrize("numbers", [None, ((0.0,) * 3, (1 / 255,) * 3)], ids=["none", "255"])
def test_the_normalisation_that_is_needed_is_named(numbers: Numbers | None, real: Path) -> None:
    found = tried(real, "resnet20_standard", numbers)
    assert "mean .485,.456,.406 and std .229,.224,.225" in found.findings[0].summary
    assert found.exit_code == 3


def _again(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    return (x - mean) / std


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one normalisation less": (_again, "resnet20_standard"),
    "inverted colours": (lambda x: 1 - x, "resnet20_standard"),
    "BGR channels": (lambda x: x.flip(1), "cnn_wide_certified_2_255"),
    "[-1, 1]": (lambda x: (x + 1) / 2, "cnn_wide_certified_2_255"),
    "[0, 255]": (lambda x: x / 255, "cnn_a_pgd_2_255"),
}


@pytest.mark.parametrize("said", CHANGES)
def test_what_is_done_to_the_images_is_named(said: str, real: Path) -> None:
    change, name = CHANGES[said]
    found = asked(real, Around(trained(real, name, MODELS[name][1]), before=change))
    assert said in found.findings[0].summary
    assert found.exit_code == 3
