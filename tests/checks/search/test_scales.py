"""The same decisions at every scale, and what a search makes of them."""

import math

import pytest
import torch
from support.check_contexts import context_of, trained
from torch import Tensor, nn

from flatguard.checks.check import InParts
from flatguard.checks.search.scales import FACTORS, scaled, sweep_scales
from flatguard.geometry.sharpness import log_trace, rise_of_log_kappa


@pytest.mark.parametrize("factor", FACTORS)
def test_kappa_at_another_scale_is_that_of_a_scaled_head(factor: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    features = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    logits = features @ weight.T

    def log_kappa(w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return 2.0 * w.norm().log() + log_trace(z, features)

    expected = log_kappa(factor * weight, factor * logits) - log_kappa(weight, logits)
    assert torch.allclose(rise_of_log_kappa(logits, factor), expected, atol=1e-9)


class Confident(nn.Module):
    """The same decisions, a thousand times as sure."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x) * 1000.0
        return logits


def test_a_confident_models_search_is_blind_at_its_own_scale_only() -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 4
    model = Confident(trained(images, labels)).eval()
    blind = {"steps": 10, "random_start": False}
    context = context_of(model, images, labels, "torchattacks:PGD", eps=0.4, attack_args=blind)
    found = InParts(sweep_scales, scaled)(context, 10)
    table = found.tables["scales"]
    right = context.samples["clean_correct"].sum()
    assert set(table["factor"]) == set(FACTORS)
    assert (table.groupby("factor")["sample"].nunique() == right).all()
    fell = table.groupby("factor")["fooled"].mean()
    assert fell[0.001] > fell[1.0] + 0.3
    # What fools at one scale fools at all of them, and what fell is an attempt like any other.
    to_best = table.pivot(index="sample", columns="factor", values="fooled_by_best")
    assert (to_best.nunique(axis=1) == 1).all()
    assert to_best[1.0].mean() == pytest.approx(fell.max())
    attempts = found.tables["attempts"].set_index("sample")["fooled"]
    assert set(attempts.index) == set(context.survivors)
    assert (attempts == to_best[1.0].loc[attempts.index]).all()
    kappa = table.groupby("factor")["log_kappa"].median()
    assert kappa[100.0] < kappa[1.0] < kappa[0.001]
    assert math.isfinite(kappa[1.0])
