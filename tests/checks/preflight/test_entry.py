"""`flatguard.preflight()`: the same answer as the command line's, and the caller's state kept."""

import copy

import numpy as np
import pytest
import torch
from support.broken import BatchNormLeftOn, SetUp, TrainsItself

import flatguard
from flatguard.errors import FlatguardError, UsageError


def test_a_module_and_arrays(good: SetUp) -> None:
    found = flatguard.preflight(good.model, data=(good.images, good.labels))
    assert isinstance(found, flatguard.Preflight)
    assert found.exit_code == 0
    assert {finding.status for finding in found.findings} == {"pass"}
    as_numpy = (good.images.numpy(), good.labels.numpy())
    assert flatguard.preflight(good.model, data=as_numpy).facts == found.facts


def test_a_name_and_a_limit_of_images() -> None:
    found = flatguard.preflight("demo", n_examples=5)
    assert found.facts.clean is not None
    assert len(found.facts.clean.samples) == 5


@pytest.mark.parametrize("kind", [TrainsItself, BatchNormLeftOn])
def test_the_caller_s_model_images_and_state_stay(kind: type[torch.nn.Module], good: SetUp) -> None:
    model = kind(copy.deepcopy(good.model)).train()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    images = good.images.clone()
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.no_grad():
        found = flatguard.preflight(model, data=(images, good.labels))
        assert not torch.is_grad_enabled()
    assert "model-changes" in {f.check for f in found.findings if f.status == "warn"}
    assert model.training
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert torch.equal(images, good.images)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_the_caller_s_grad_mode_does_not_change_the_answer(good: SetUp) -> None:
    plain = flatguard.preflight(good.model, data=(good.images, good.labels))
    with torch.no_grad():
        assert flatguard.preflight(good.model, data=(good.images, good.labels)) == plain
    with torch.autocast("cpu"):
        assert flatguard.preflight(good.model, data=(good.images, good.labels)) == plain


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"eps": 8}, "was 8/255 meant?"),
        ({"eps": "8", "norm": "L2"}, "8"),
        ({"epsilon": "8/255"}, "epsilon"),
        ({"n_examples": 0}, "n.examples"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, object], text: str, good: SetUp) -> None:
    images = good.images[:, :, :2, :2]
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
    with pytest.raises(UsageError, match=text) as caught:
        flatguard.preflight(net, data=(images, good.labels), **options)
    assert len(str(caught.value).splitlines()) == 1


BAD_IMAGES = {
    "nan": (lambda x: x.index_fill(0, torch.tensor([3]), float("nan")), "nan in sample 3"),
    "infinite": (lambda x: x.index_fill(0, torch.tensor([3]), float("inf")), "infinite value in"),
    "in [0, 255]": (lambda x: x * 255, "divide by 255"),
    "in [-1, 1]": (lambda x: 2 * x - 1, r"give \(images \+ 1\) / 2"),
    "a little above 1": (lambda x: x * 1.01, "expected images in \\[0, 1\\]"),
    "whole numbers": (lambda x: (x * 255).long(), ""),
}


@pytest.mark.parametrize("kind", [kind for kind in BAD_IMAGES if kind != "whole numbers"])
def test_images_outside_of_the_box_are_refused_with_what_to_do(kind: str, good: SetUp) -> None:
    change, text = BAD_IMAGES[kind]
    with pytest.raises(FlatguardError, match=text) as caught:
        flatguard.preflight(good.model, data=(change(good.images), good.labels))
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_and_rounding_errors_are_no_fault(good: SetUp) -> None:
    as_bytes = (good.images * 255).round().to(torch.uint8)
    assert flatguard.preflight(good.model, data=(as_bytes, good.labels)).exit_code == 0
    rounded = good.images.clone()
    rounded[0, 0, 0, 0], rounded[1, 0, 0, 0] = -3e-8, 1 + 1e-7
    found = flatguard.preflight(good.model, data=(rounded, good.labels))
    assert {finding.status for finding in found.findings} == {"pass"}


def test_labels_that_count_from_one_are_refused_with_what_to_do(good: SetUp) -> None:
    with pytest.raises(FlatguardError, match="subtract 1 if the labels count from 1"):
        flatguard.preflight(good.model, data=(good.images, good.labels + 1))
