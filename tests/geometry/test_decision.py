"""Loss, margin and confidence where float32 would round to 0."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.geometry.decision import confidence, cross_entropy, margin


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30))
def test_cross_entropy_is_torchs_where_torch_is_right(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, dtype=torch.float64, generator=generator) * scale
    labels = torch.randint(5, (6,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(cross_entropy(logits, labels), expected, rtol=1e-7, atol=1e-13)


def test_cross_entropy_of_a_confident_model_is_not_zero() -> None:
    logits, label = torch.tensor([[100.0, 0.0]]), torch.tensor([0])
    assert cross_entropy(logits, label).item() == pytest.approx(math.exp(-100), rel=1e-9)
    assert cross_entropy(-logits, label).item() == pytest.approx(100.0)
    assert cross_entropy(-logits * 1e4, label).item() == pytest.approx(1e6)


def test_margin_is_positive_exactly_if_the_label_is_predicted() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0]])
    assert margin(logits, torch.tensor([0, 2, 0])).tolist() == [1.0, -1.0, 0.0]


def test_confidence() -> None:
    values = confidence(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]))
    assert values.tolist() == [0.5, 1.0]
