"""Answers to small steps: exact on linear functions, none where nothing moves."""

import math

import pytest
import torch

from flatguard.geometry.response import correlation, half_differences, predictions


def test_a_linear_function_answers_as_its_gradient_predicts() -> None:
    generator = torch.Generator().manual_seed(0)
    slope = torch.randn(5, 3, 2, 2, generator=generator)
    steps = [0.1 * torch.randn(5, 3, 2, 2, generator=generator) for _ in range(7)]
    predicted = predictions(slope, steps)
    expected = torch.stack([(slope.double() * step.double()).sum((1, 2, 3)) for step in steps])
    assert torch.allclose(predicted, expected, rtol=1e-12)
    answers = half_differences(1.0 + predicted, 1.0 - predicted)
    assert torch.allclose(answers, predicted)
    assert correlation(answers, predicted).tolist() == pytest.approx([1.0] * 5)
    assert correlation(-answers, predicted).tolist() == pytest.approx([-1.0] * 5)


def test_what_does_not_move_has_no_correlation() -> None:
    still = torch.ones(4, 2, dtype=torch.float64)
    answers = half_differences(still, still)
    assert answers.isnan().all()
    assert all(math.isnan(each) for each in correlation(answers, torch.ones(4, 2)).tolist())


def test_a_gradient_of_zero_explains_nothing() -> None:
    moved = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
    assert correlation(moved, torch.zeros(2, 1, dtype=torch.float64)).tolist() == [0.0]
