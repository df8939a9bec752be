"""On which side of a gate an image is, and how far."""

import pytest
import torch

from flatguard.switches.slack import Answer, Slack


def test_the_least_over_gates_each_over_its_spread() -> None:
    first = torch.tensor([1.0, -1.0], requires_grad=True)
    second = [torch.tensor(float(value), requires_grad=True) for value in (30, -10)]
    found = Slack([first], {"place": second}).of(2)
    assert found is not None
    spread = torch.tensor([1.0, -1.0]).std()
    assert found.tolist() == pytest.approx([1 / float(spread), -1 / float(spread)])


def test_what_has_no_gradient_or_misses_images_is_unknown() -> None:
    assert Slack([torch.ones(2)]).of(2) is None
    one = torch.ones((), requires_grad=True)
    assert Slack([], {"place": [one]}).of(2) is None


def test_by_how_much_each_score_leads() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0]])
    assert Answer(scores.argmax(dim=1), scores).leads().tolist() == [[1.0, -2.0, -1.0]]
