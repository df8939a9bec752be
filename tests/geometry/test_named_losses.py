"""Losses by name: parsed, refused with the known names, and equal to the formulas."""

from typing import Any

import pytest
import torch

from flatguard.geometry.losses import (
    brier_loss,
    brier_trace,
    focal_loss,
    focal_trace,
    soft_target_loss,
    soft_target_trace,
)
from flatguard.geometry.named_losses import parse_loss, parse_losses


def test_losses_by_name() -> None:
    assert parse_loss(" focal:0.5 ").parameter == 0.5
    assert [loss.kind for loss in parse_losses(("focal", "brier", "kl:0.1"))] == [
        "focal", "brier", "kl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hinge", "expected one of focal, focal:GAMMA, brier and kl:ALPHA, got 'hinge'"),
        ("brier:2", "brier takes no parameter"),
        ("focal:-1", "number of at least 0"),
        ("focal:", "number of at least 0"),
        ("focal:nan", "number of at least 0"),
        ("kl", r"label smoothing in \[0, 1\], such as kl:0.1, got 'kl'"),
        ("kl:1.1", "label smoothing"),
    ],
)
def test_a_loss_that_is_none(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_loss(name)


def test_a_repeated_loss() -> None:
    with pytest.raises(ValueError, match="expected each loss once"):
        parse_losses(("brier", "focal", "brier"))


FORMULAS: dict[str, tuple[Any, Any]] = {
    "focal": (lambda z, y: focal_loss(z, y, 2.0), lambda z, y, f: focal_trace(z, y, f, 2.0)),
    "focal:0.5": (lambda z, y: focal_loss(z, y, 0.5), lambda z, y, f: focal_trace(z, y, f, 0.5)),
    "brier": (brier_loss, brier_trace),
    "kl:0.1": (
        lambda z, y: soft_target_loss(z, y, 0.1),
        lambda z, y, f: soft_target_trace(z, f),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_selects_its_formulas(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    features = torch.randn(6, 5, generator=generator)
    labels = torch.arange(6) % 4
    named, (loss, trace) = parse_loss(name), FORMULAS[name]
    assert torch.equal(named.values(logits, labels), loss(logits, labels))
    found, expected = named.trace(logits, labels, features), trace(logits, labels, features)
    assert torch.equal(found.value(), expected.value())
