"""The columns of the trajectory, against the formulas and dense autograd."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.attacks.monitor import Order
from flatguard.errors import UsageError
from flatguard.geometry.budget import Budget
from flatguard.geometry.decision import cross_entropy, margin
from flatguard.geometry.sharpness import log_relative_sharpness
from flatguard.recording.attribution import UNASSIGNED, Assignment
from flatguard.recording.measure import HeadCall, Seen, measure, measured_columns

EPS = 8 / 255


Images = tuple[torch.Tensor, torch.Tensor]


def test_every_number_is_what_the_formulas_give(model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    moved = (x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(
        0, 1
    )
    with flatguard.Recorder(model, x, y, order=Order(keeps=True)) as recorder:
        model(moved)
    frame = recorder.trajectory()
    with torch.no_grad():
        phi = model[:3](moved)
        logits = model(moved)
    kappa = log_relative_sharpness(logits, phi, model[3].weight.detach())
    expected = {
        "sample": torch.arange(12),
        "call": torch.zeros(12),
        "loss": cross_entropy(logits, y),
        "log_kappa": kappa,
        "feature_norm": phi.norm(dim=1),
        "confidence": logits.softmax(1).amax(1),
        "margin": margin(logits, y),
        "prediction": logits.argmax(1),
        "linf": (moved - x).abs().amax((1, 2, 3)),
        "l2": (moved - x).flatten(1).norm(dim=1),
    }
    for name, values in expected.items():
        assert frame[name].tolist() == pytest.approx(values.tolist(), rel=1e-5), name
    weight_norm = 2 * model[3].weight.detach().double().norm().log()
    assert np.log(frame["trace"]).tolist() == pytest.approx(
        (kappa - weight_norm).tolist(), abs=1e-6
    )


def test_other_losses_against_dense_autograd(tiny_data: Images) -> None:
    """Value and trace of every recorded row, from the loss as it is written in Table 1."""
    x, y = tiny_data
    torch.manual_seed(1)
    model = tiny().eval()
    with torch.no_grad():
        model[3].weight *= 30.0  # confident rows, right and wrong: traces of both signs
    with flatguard.Recorder(
        model, x, y, order=Order(keeps=True), losses=["focal", "focal:0.5", "brier", "kl:0.1"]
    ) as recorder:
        model(x)
    frame = recorder.trajectory()
    weight, phi = model[3].weight.detach().double(), model[:3](x).detach().double()
    bias, k = model[3].bias.detach().double(), 4
    hot = torch.nn.functional.one_hot(y, k).double()
    q = 0.9 * hot + 0.1 / k
    formulas = {
        "focal": lambda p, i: -((1 - p[y[i]]) ** 2) * p[y[i]].log(),
        "focal:0.5": lambda p, i: -((1 - p[y[i]]) ** 0.5) * p[y[i]].log(),
        "brier": lambda p, i: (p - hot[i]).square().sum(),
        "kl:0.1": lambda p, i: (q[i] * (q[i].log() - p.log())).sum(),
    }
    signs = set()
    for name, formula in formulas.items():
        for i in range(len(x)):

            def loss(w: torch.Tensor, formula=formula, i: int = i) -> torch.Tensor:
                return formula((w.view(k, -1) @ phi[i] + bias).softmax(0), i)

            hessian = torch.autograd.functional.hessian(loss, weight.flatten())
            row = frame.iloc[i]
            sign, size = row[f"{name}_trace_sign"], row[f"{name}_log_trace"]
            assert row[f"{name}_loss"] == pytest.approx(loss(weight).item(), rel=1e-4)
            assert sign * np.exp(size) == pytest.approx(hessian.trace().item(), rel=1e-3)
            signs.add((name.split(":")[0], int(sign)))
    assert {("focal", 1), ("focal", -1), ("brier", 1), ("brier", -1), ("kl", 1)} <= signs
    with flatguard.Recorder(model, x, y, order=Order(keeps=True)) as plain:
        model(x)
    without = plain.trajectory()
    pd.testing.assert_frame_equal(frame[without.columns], without)


def test_other_losses_are_missing_where_label_or_head_is_not_known(tiny_data: Images) -> None:
    x, y = tiny_data
    model = nn.Sequential(tiny(), nn.Softmax(dim=1)).eval()
    budget = Budget("Linf", EPS)
    with flatguard.Recorder(model, x, y, budget=budget, losses=["brier"]) as recorder:
        model(torch.cat([x[:1], 1 - x[1:2]]))
    frame = recorder.trajectory()
    assert frame["brier_loss"].isna().tolist() == [False, True]
    assert frame[["brier_trace_sign", "brier_log_trace"]].isna().all(axis=None)
    assert frame["brier_trace_sign"].dtype == "Int8"
    with pytest.raises(UsageError, match="losses: expected one of focal"):
        flatguard.Recorder(model, x, y, losses=["hinge"])


def test_nan_logits_are_missing_not_zero(tiny_data: Images) -> None:
    class Breaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.broken = tiny(), False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) * (float("nan") if self.broken else 1.0)

    x, y = tiny_data
    model = Breaking().eval()
    with flatguard.Recorder(model, x, y) as recorder:
        model.broken = True
        model(x)
    frame = recorder.trajectory()
    assert frame[["loss", "log_kappa", "margin", "confidence"]].isna().all(axis=None)


def rows(sample: list[int], head_call: HeadCall | None) -> Seen:
    number = torch.tensor(sample)
    apart = torch.zeros(len(sample), dtype=torch.float64)
    logits = torch.tensor([[2.0, 0.0, 0.0]]).repeat(len(sample), 1)
    return Seen.of(Assignment(number, number * 0, apart, apart), logits, head_call)


def test_without_a_head_the_geometry_is_missing() -> None:
    found = measure(rows([0, 1], None), torch.tensor([0, 2]), None, 0.0)
    table = dict(zip(measured_columns(has_head=False), found.T, strict=True))
    assert table["log_kappa"].isnan().all()
    assert table["feature_norm"].isnan().all()
    assert table["margin"].tolist() == [2.0, -2.0]


def test_an_unassigned_row_has_no_loss() -> None:
    found = measure(rows([UNASSIGNED], None), torch.tensor([0]), None, 0.0)
    table = dict(zip(measured_columns(has_head=False), found.T, strict=True))
    assert table["loss"].isnan().all()
    assert table["margin"].isnan().all()
    assert table["prediction"].tolist() == [0]


def test_calls_are_joined_in_order() -> None:
    call = HeadCall.of(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 3))
    joined = Seen.joined([rows([0], call), rows([1, 2], None)])
    assert joined.sample.tolist() == [0, 1, 2]
    assert joined.feature_norm[0] == 5.0
    assert joined.feature_norm[1:].isnan().all()
    assert HeadCall.of(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3)) is None


class Distances(nn.Module):
    """Logits that no linear operation computes, times a factor."""

    def __init__(self, factor: float):
        super().__init__()
        torch.manual_seed(0)
        self.factor, self.prototypes = factor, nn.Parameter(torch.rand(5, 3 * 8 * 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.factor * torch.cdist(x.flatten(1), self.prototypes)


@pytest.mark.parametrize("factor", [1.0, 300.0])
def test_without_a_head_logit_sharpness_is_the_trace_in_the_logits(factor: float) -> None:
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    y = torch.arange(6) % 5
    model = Distances(factor)
    with flatguard.Recorder(model, x, y, order=Order(keeps=True)) as recorder:
        logits = model(x).detach()
    frame = recorder.trajectory()
    assert frame[["log_kappa", "trace", "feature_norm"]].isna().all(axis=None)
    found = frame["log_logit_sharpness"].to_numpy()
    assert np.isfinite(found).all()
    for row in range(6):
        z = logits[row].double()
        if float((z.topk(2).values * torch.tensor([1.0, -1.0])).sum()) > 20:
            other = z.sort(descending=True).values[1:] - z.max()
            assert found[row] == pytest.approx(math.log(2) + float(other.logsumexp(0)), rel=1e-6)
            continue
        hessian = torch.autograd.functional.hessian(
            lambda v, label=y[row]: nn.functional.cross_entropy(v[None], label[None]), z
        )
        assert math.exp(found[row]) == pytest.approx(float(hessian.trace()), rel=1e-5)


def test_with_a_head_there_is_no_logit_sharpness(model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    with flatguard.Recorder(model, x, y) as recorder:
        model(x)
    assert "log_logit_sharpness" not in recorder.trajectory()
