"""Preflight is silent on real, honest models, and says what is wrong with their inputs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.architectures import cnn, cnn_wide, resnet20, resnet56
from torch import nn

from flatguard.checks.preflight.judged import Preflight, preflight
from flatguard.data import load_dataset
from flatguard.execution.context import load_model_and_data
from flatguard.request import make_request
from flatguard.targets.target import Normalized, make_target

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
    net = MODELS[name][0]()
    net.load_state_dict(load_file(real / "checkpoints" / f"cifar10_{name}.safetensors"))
    model = net if numbers is None else Normalized(net, *numbers)
    data = load_dataset(str(real / "cifar10_test_first1000.npz"))
    request = make_request(model=name, attack="torchattacks:PGD", n_examples=1000)
    return preflight(load_model_and_data(request, None, make_target(model, name, "a file"), data))


@pytest.mark.parametrize("name", MODELS)
def test_an_honest_model_is_passed_in_silence(name: str, real: Path) -> None:
    found = tried(real, name, MODELS[name][1])
    assert {finding.status for finding in found.findings} == {"pass"}, found.findings
    assert found.exit_code == 0
    assert found.facts.forwards <= 1200


def test_the_demo_is_passed_in_silence() -> None:
    found = preflight(load_model_and_data(make_request(model="demo", attack="torchattacks:PGD")))
    assert {finding.status for finding in found.findings} == {"pass"}, found.findings


@pytest.mark.parametrize("numbers", [None, ((0.0,) * 3, (1 / 255,) * 3)], ids=["none", "255"])
def test_the_normalisation_that_is_needed_is_named(numbers: Numbers | None, real: Path) -> None:
    found = tried(real, "resnet20_standard", numbers)
    assert "mean .485,.456,.406 and std .229,.224,.225" in found.findings[0].summary
    assert found.exit_code == 3
