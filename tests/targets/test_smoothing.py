"""Smoothed classifiers: their rule is Cohen et al.'s, and gradients are those of their mean."""

import pytest
import torch
from scipy.stats import binomtest
from support import digits
from support.digits_target import images, labels
from torch import Tensor, nn

import flatguard
from flatguard.errors import ModelError
from flatguard.targets.smoothing import Smoothed, abstention_of, p_of_lead


class Line(nn.Module):
    """Two classes: on which side of one half the mean of an image lies."""

    def forward(self, x: Tensor) -> Tensor:
        side = x.flatten(1).mean(dim=1, keepdim=True) - 0.5
        return torch.cat([-side, side], dim=1)


def test_a_vote_without_a_clear_lead_abstains() -> None:
    torch.manual_seed(0)
    x = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    with torch.no_grad():
        logits = Smoothed(Line(), sigma=0.1, votes=100, alpha=0.001)(x)
    assert logits.shape == (3, 3)
    assert logits.argmax(dim=1).tolist() == [0, 2, 1]


def test_the_rule_is_that_of_the_exact_test() -> None:
    torch.manual_seed(1)
    model = Smoothed(Line(), sigma=0.2, votes=50, alpha=0.05)
    x = torch.linspace(0.3, 0.7, 41).view(-1, 1, 1, 1)
    with torch.no_grad():
        logits = model(x)
    counts = logits[:, :2].exp() - 0.5
    for row, count in zip(logits, counts.round().long().tolist(), strict=True):
        assert sum(count) == 50
        undecided = binomtest(max(count), 50, 0.5).pvalue > 0.05
        expected = 2 if undecided else int(count[1] > count[0])
        assert int(row.argmax()) == expected
    assert p_of_lead(50, 50) == pytest.approx(2 * 0.5**50)


def test_its_gradient_is_that_of_the_mean_of_softmax() -> None:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    model = Smoothed(base, sigma=0.3, draws=5)
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(7)
    logits = model(x)
    torch.manual_seed(7)
    parts = [base(x + 0.3 * torch.randn_like(x)).softmax(1) for _ in range(5)]
    expected = torch.stack(parts).mean(0).log()
    assert torch.allclose(logits[:, :3], expected)
    (one,) = torch.autograd.grad(logits[:, 1].sum(), x)
    (two,) = torch.autograd.grad(expected[:, 1].sum(), x)
    assert torch.allclose(one, two)
    assert bool((logits[:, 3] < logits[:, :3].amin(1)).all())


def test_settings_that_mean_nothing_are_one_line() -> None:
    with pytest.raises(ModelError, match="got sigma=0"):
        Smoothed(Line(), sigma=0.0)


def test_abstentions_are_counted_apart(tmp_path) -> None:
    with torch.random.fork_rng():
        net = digits.trained()
    torch.manual_seed(0)
    model = Smoothed(net, sigma=0.5, votes=40, alpha=0.001)
    run = flatguard.evaluate(
        model, "torchattacks:PGDL2", data=(images(12), labels(12)), norm="L2", eps=0.3,
        attack_args={"steps": 3}, out=tmp_path / "run", checks="none",
    )  # fmt: skip
    table, k = run.samples, run.manifest.target.num_classes
    assert k == 11
    clean = int((table["clean_prediction"] == k - 1).sum())
    attacked = int((table["adv_prediction"] == k - 1).sum())
    assert run.summary["abstentions"] == {"clean": clean / 12, "adversarial": attacked / 12}
    assert attacked > 0
    assert not table.loc[table["adv_prediction"] == k - 1, "robust"].any()
    assert any("an abstention is no right answer" in note for note in run.manifest.target.notes)
    assert abstention_of(net) is None


class Renamed(nn.Module):
    """A model that returns its logits by name."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(x), "features": x.flatten(1)}


def test_the_logits_of_the_base_are_found_in_what_it_returns() -> None:
    x = torch.rand(5, 1, 2, 2)
    base = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    single = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)).eval()
    for grad in (False, True):
        found = []
        for net in (base, Renamed(base)):
            torch.manual_seed(3)
            with torch.set_grad_enabled(grad):
                found.append(Smoothed(net, sigma=0.2)(x.requires_grad_(grad)))
        assert torch.equal(*found)
        assert Smoothed(single, sigma=0.2)(x).shape == (5, 3)
    with pytest.raises(ModelError, match=r"smoothed model, got \(5, 3, 2, 2\): a value for each"):
        Smoothed(nn.Conv2d(1, 3, 1), sigma=0.2)(x)
