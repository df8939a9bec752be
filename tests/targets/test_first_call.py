"""The first call of a model: what is no output, images that do not fit, and errors in one line."""

import pytest
import torch
from support.architectures import tiny
from torch import nn

from flatguard.errors import ModelError
from flatguard.targets import make_target, prepare

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Bad(nn.Module):
    def __init__(self, output: object):
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (torch.zeros(5, 1), r"expected logits of shape \(n, classes\).*got \(5, 1\)"),
        (torch.zeros(4, 3, 2, 2), r"got \(4, 3, 2, 2\): a value for each pixel or place"),
        ((1, 2), "got tuple of 0 int, 1 int"),
        (torch.full((4, 3), float("nan")), "NaN or infinite logits on 4 of the first 4"),
        (torch.tensor([[0.0, float("inf")]] * 4), "NaN or infinite logits"),
    ],
)
def test_an_output_that_is_no_logits(output: object, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        prepare(make_target(Bad(output).eval(), "bad", "here"), IMAGES)


def test_images_of_the_wrong_shape() -> None:
    with pytest.raises(ModelError, match=r"fails on images of shape \(1, 28, 28\)"):
        prepare(make_target(tiny(), "t", "here"), torch.rand(2, 1, 28, 28))


def test_a_model_of_another_precision_is_not_a_wrong_shape() -> None:
    target = prepare(make_target(tiny().double().eval(), "t", "here"), IMAGES)
    assert any("the model's own float64" in note for note in target.notes)
    with pytest.raises(ModelError, match="mat1 and mat2 shapes"):
        prepare(make_target(tiny().double().eval(), "t", "here"), IMAGES[:, :1])


def test_probabilities_are_noticed() -> None:
    model = nn.Sequential(tiny(), nn.Softmax(dim=1)).eval()
    notes = prepare(make_target(model, "t", "here"), IMAGES).notes
    assert any("looks like probabilities" in note for note in notes)


@pytest.mark.parametrize("error", [AttributeError, KeyError, OSError])
def test_whatever_a_model_raises_is_one_line(error: type[Exception]) -> None:
    class Raises(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error("no\nluck")

    with pytest.raises(ModelError, match=f"{error.__name__}: "):
        prepare(make_target(Raises().eval(), "r", "here"), IMAGES)
