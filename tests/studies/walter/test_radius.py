"""Proposition 9: the printed radius, and an attack inside it."""

from collections.abc import Callable

import pytest
import torch
from support.studies import Plain, claim_of, subject_of, verdicts

from flatguard.studies.result import Result
from flatguard.studies.walter.radius import _worst_rise


def test_the_limit_holds_and_the_closed_form_does_not(result_of: Callable[[str], Result]) -> None:
    result = result_of("walter-prop9")
    found = verdicts(result.claims)
    assert found["limit"] == found["feature-radius"] == "agrees"
    assert found["closed-form"] == found["attacked-reparametrised"] == "refuted"
    assert claim_of(result, "grows").verdict in ("agrees", "differs")
    figures = result.figures
    # The printed radius: ε = b Δ² + a Δ³ with Δ = L δ / r, b = κ / 2, a = k m L³ / 24.
    for log_kappa, delta, lipschitz, radius in zip(
        *(figures[key] for key in ("log_kappa", "printed_delta", "lipschitz", "radius")),
        strict=True,
    ):
        step = lipschitz * delta / radius
        kappa = torch.tensor(log_kappa).double().exp().item()
        rise = kappa / 2 * step**2 + 10 * 64 * lipschitz**3 / 24 * step**3
        assert rise == pytest.approx(figures["epsilon"], rel=1e-3)


def test_the_attack_stays_in_its_ball_and_raises_the_loss(plain_digits: Plain) -> None:
    subject = subject_of("walter-prop9", plain_digits, 12)
    batch, seen = subject.batch(), []
    handle = subject.model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach())
    )
    radius = torch.linspace(0.1, 1.0, 12)
    rise = _worst_rise(subject, batch, radius)
    handle.remove()
    for images in seen:
        assert bool(((images - batch.images).flatten(1).norm(dim=1) <= radius + 1e-5).all())
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert bool((rise >= 0).all())
    assert float(rise[-4:].min()) > 1e-4
    larger = _worst_rise(subject, batch, 2 * radius)
    assert float(larger.sum()) > float(rise.sum())
