"""Layouts, types and ranges: decided by a rule, or refused by name."""

import numpy as np
import pytest
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Dataset
from flatguard.errors import DataError


def of(images: torch.Tensor) -> Dataset:
    return ArrayDataset(images, torch.zeros(len(images)), "d")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 8, 6), (3, 8, 6)), ((8, 6, 3), (3, 8, 6)), ((1, 4, 4), (1, 4, 4)),
        ((4, 4, 1), (1, 4, 4)), ((3, 4, 4), (3, 4, 4)), ((4, 4, 3), (3, 4, 4)),
        ((13, 8, 8), (13, 8, 8)), ((8, 8, 13), (13, 8, 8)), ((2, 8, 8), (2, 8, 8)),
        ((8, 8, 2), (2, 8, 8)), ((7, 30, 40), (7, 30, 40)), ((30, 40, 7), (7, 30, 40)),
        ((8, 6), (1, 8, 6)),
    ],
)  # fmt: skip
def test_where_the_channels_are(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert of(torch.rand(2, *shape)).block(0, 2).images.shape[1:] == expected


@pytest.mark.parametrize("shape", [(3, 8, 4), (1, 8, 3)])
def test_a_layout_that_is_not_clear(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="may have their channels first or last"):
        of(torch.rand(2, *shape)).block(0, 2)


@pytest.mark.parametrize("value", [-3e-8, 1 + 1e-6, -1e-5])
def test_rounding_errors_are_clamped_in_a_copy(value: float) -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    images[1, 0, 0, 0] = value
    given = images.clone()
    served = of(images).block(0, 2).images
    assert served.min() >= 0
    assert served.max() <= 1
    assert torch.equal(images, given)
    served[:] = 0
    assert torch.equal(images, given)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.rand(2, 3, 4, 4) * 255, "divide by 255, or store uint8"),
        (torch.rand(2, 3, 4, 4) * 65535, "divide by 65535"),
        (torch.rand(2, 3, 4, 4) * 2 - 1, r"images in \[-1, 1\]: give \(images \+ 1\) / 2"),
        ((torch.rand(2, 3, 4, 4) - 0.45) / 0.22, "undo the normalisation"),
        (torch.linspace(-0.1, 1, 96).view(2, 3, 4, 4), r"clip the images to \[0, 1\]"),
        (torch.linspace(0, 1.01, 96).view(2, 3, 4, 4), r"clip the images to \[0, 1\]"),
        (torch.full((2, 3, 4, 4), torch.inf), "an infinite value in sample 0"),
        (torch.full((2, 3, 4, 4), torch.nan), "nan in sample 0"),
        (torch.ones(2, 3, 4, 4, dtype=torch.int64), "convert values from 0 to 255 to uint8"),
        (torch.ones(2, 3, 4, 4, dtype=torch.bool), "got torch.bool"),
        (torch.rand(2, 3, 0, 4), "have no pixels"),
        (torch.rand(2, 1, 3, 4, 4), "expected images"),
    ],
)
def test_values_that_are_refused(images: torch.Tensor, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        of(images).block(0, 2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_types_of_images(kind: torch.dtype) -> None:
    assert of(torch.ones(2, 3, 4, 4).to(kind)).block(0, 2).images.dtype == torch.float32


@pytest.mark.parametrize(
    ("label", "advice"), [(4, "subtract 1"), (-1, "without a label"), (9, "for sample 1$")]
)
def test_labels_of_another_model(label: int, advice: str) -> None:
    dataset = ArrayDataset(np.zeros((2, 3, 4, 4), np.uint8), np.array([0, label]), "d")
    with pytest.raises(DataError, match=f"labels from 0 to 3.*got {label} for sample 1.*{advice}|"
                       f"got {label} {advice}"):  # fmt: skip
        dataset.check_label(label, 4, 1)
