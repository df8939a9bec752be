"""Twins are followed where their gradient leads further, and decide as the model does."""

import torch
from support.check_contexts import trained
from support.defences import Before, bits
from torch import Tensor, nn

import flatguard
from flatguard.attacks import build_attack
from flatguard.attacks.leading_twins import leading_twins
from flatguard.attacks.monitor import NoMonitor
from flatguard.attacks.survivors import Images, Survivors
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import within

BUDGET = Budget("Linf", 0.08)


def data(count: int = 16) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(count) % 4


def on(model: nn.Module) -> Survivors:
    images, labels = data()
    return Survivors(model, Images(images, labels), BUDGET, NoMonitor())


def found_on(model: nn.Module) -> list[str]:
    survivors = on(model)
    rows = survivors.surviving[:8]
    torch.manual_seed(0)
    twins = leading_twins(survivors, data()[0][rows], rows, BUDGET)
    return [repair.name for repair in twins]


class Guided(nn.Module):
    """Looks at a gradient of its own in the forward pass, of pixels that it rounds."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inside = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(inside).amax(), inside)
        logits: Tensor = self.net(((x + 0.001 * slope.sign()) * 7).round() / 7)
        return logits


def test_a_repair_is_followed_only_where_it_leads_further() -> None:
    net = trained(*data())
    assert found_on(net) == []
    followed = found_on(Before(net, bits(3)).eval())
    assert 1 <= len(followed) <= 2
    assert set(followed) <= {"cutting", "front", "all"}


def test_a_twin_that_cannot_run_is_no_error() -> None:
    images, labels = data()
    model = Guided(trained(images, labels)).eval()
    found = build_attack("cascade", BUDGET, 4, {}).perturb(model, images, labels, 0)
    assert within(found.images, images, BUDGET).all()
    assert any("gradients mislead the cascade" in warning for warning in found.warnings)


def test_the_twin_gives_the_gradient_and_the_model_the_decision() -> None:
    model = Before(trained(*data()), bits(3)).eval()
    survivors = on(model)
    rows = survivors.surviving
    images = data()[0][rows]
    (first, *_) = leading_twins(survivors, images[:8], rows[:8], BUDGET)
    aims = [survivors.next_classes(rows)[0] for _ in range(2)]
    survivors.follow(first.twin)
    assert torch.equal(survivors.next_classes(rows)[0], aims[0])  # no class counts as tried
    survivors.begin(rows)
    x = images.clone().requires_grad_(True)
    answer = survivors(x)
    (slope,) = torch.autograd.grad(answer[:, 0].sum(), x)
    assert slope.flatten(1).any(dim=1).all()
    with torch.no_grad():
        assert torch.equal(answer.argmax(dim=1), model(images).argmax(dim=1))


def test_the_cascade_finds_through_a_rounding_what_it_finds_without() -> None:
    images, labels = data()
    net = trained(images, labels)
    budget = Budget("Linf", 0.15)
    right = {}
    for name, model in (("smooth", net), ("rounded", Before(net, bits(3)).eval())):
        found = build_attack("cascade", budget, 4, {}).perturb(model, images, labels, 0)
        assert within(found.images, images, budget).all()
        with torch.no_grad():
            right[name] = int((model(found.images).argmax(dim=1) == labels).sum())
    assert any("repaired gradients" in warning for warning in found.warnings)
    assert right["rounded"] <= right["smooth"] + 1 < len(images) - 1


def test_recording_changes_nothing_and_knows_every_row() -> None:
    images, labels = data()
    model = Before(trained(images, labels), bits(3)).eval()
    attack = build_attack("cascade", BUDGET, 4, {})
    plain = attack.perturb(model, images, labels, 0).images
    with flatguard.Recorder(model, images, labels, budget=BUDGET) as recorder:
        attack = build_attack("cascade", BUDGET, 4, {})
        recorded = attack.perturb(recorder.model, images, labels, 0, recorder).images
    assert torch.equal(plain, recorded)
    assert recorder.rows_unassigned == 0
    assert (recorder.trajectory()["assigned_by"] == "declared").all()
