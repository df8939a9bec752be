"""The caller's model is as it was, in every part, however a run ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatguard
from flatguard.errors import AttackError
from flatguard.execution.progress import Silent
from flatguard.gate.cache import RunCache
from flatguard.gate.config import config_of
from flatguard.gate.gate import pass_through
from flatguard.targets import make_target
from flatguard.targets.restored import restored

PGD: dict[str, Any] = {"attack": "foolbox:LinfPGD", "eps": "8/255", "attack_args": {"steps": 2}}
"""It calls `backward`, which adds to every weight's gradient."""


class Net(nn.Module):
    """Of every kind that a model may hold: modes of their own, frozen weights, plain parts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(144, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.aside = [nn.Linear(4, 4)]
        self.plain = torch.zeros(4, requires_grad=True)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        features = self.drop(self.norm(self.conv(images)).relu()).flatten(1)
        logits: Tensor = self.aside[0](self.frozen(self.head(features))) + self.plain
        return logits


def caller() -> nn.Module:
    """A model in the middle of its training: a mixture of modes, and gradients of a step."""
    torch.manual_seed(0)
    net = Net().train()
    net.norm.eval()
    for weight in [*net.parameters(), net.plain, *net.aside[0].parameters()]:
        if weight.requires_grad:
            weight.grad = torch.ones_like(weight)
    net.head.weight.grad = None
    net.register_forward_hook(lambda *_: None)
    net.head.register_forward_pre_hook(lambda *_: None)
    return net


def picture(net: Any) -> list[Any]:
    """All that a caller may look at, by identity and by value."""
    modules = [*net.modules(), *net.aside]
    tensors = [*net.parameters(), *net.buffers(), net.plain, *net.aside[0].parameters()]
    hooks = [
        [*module._forward_hooks.items(), *module._forward_pre_hooks.items()] for module in modules
    ]
    return [
        [module.training for module in modules],
        hooks,
        [(id(t), t.requires_grad, t.device, t.data_ptr(), id(t.grad)) for t in tensors],
        [t.detach().clone().tolist() for t in tensors],
        [None if t.grad is None else t.grad.clone().tolist() for t in tensors],
    ]


Data = tuple[Tensor, Tensor]


def evaluated(net: nn.Module, data: Data, folder: Path) -> None:
    flatguard.evaluate(net, **PGD, data=data, out=folder / "run")


def of_a_target(net: nn.Module, data: Data, folder: Path) -> None:
    flatguard.evaluate("demo", "torchattacks:FGSM", n_examples=4, out=folder / "demo",
                       checks="none")  # fmt: skip
    with restored(net):
        flatguard.evaluate(make_target(net, "net", "a test"), **PGD, data=data, out=folder / "run")


def taken_up(net: nn.Module, data: Data, folder: Path) -> None:
    evaluated(net, data, folder)
    part = flatguard.evaluate(
        net, **PGD, data=data, out=folder / "part", batch_size=4, shard="1/2", checks="fast"
    )
    flatguard.resume(part, model=net, data=data)


def audited(net: nn.Module, data: Data, folder: Path) -> None:
    run = flatguard.evaluate(net, **PGD, data=data, out=folder / "run", checks="none")
    flatguard.audit(run, checks="standard", model=net, data=data)


def gated(net: nn.Module, data: Data, folder: Path) -> None:
    """What the plugin's fixture calls; the second time the run comes from the cache."""
    for _ in range(2):
        pass_through(config_of(PGD), RunCache(folder / "cache", "a test"), model=net, data=data)


def recorded(net: nn.Module, data: Data, folder: Path) -> None:
    import torchattacks

    calls = net.get_buffer("calls")
    before = calls.clone()
    with flatguard.Recorder(net, *data, gradients=True) as recorder:
        net.eval()
        torchattacks.PGD(recorder.model, steps=2)(*data)
        nn.functional.cross_entropy(net(data[0]), data[1]).backward()
    calls.copy_(before)  # what a model counts is its own


def failed(net: nn.Module, data: Data, folder: Path) -> None:
    with pytest.raises(AttackError):
        flatguard.evaluate(
            net, "torchattacks:JSMA", eps="1/255", norm="L0", data=data, out=folder / "run",
            attack_args={"theta": "nonsense"},
        )  # fmt: skip
    with pytest.raises(flatguard.FlatguardError):
        flatguard.evaluate(net, **PGD, data=(data[0], data[1] + 9), out=folder / "run")


class _Interrupts(Silent):
    def called(self, rows: int) -> None:
        raise KeyboardInterrupt


def _give_up(net: nn.Module) -> None:
    net.eval().requires_grad_(False)
    raise KeyboardInterrupt


def interrupted(net: nn.Module, data: Data, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        flatguard.evaluate(net, **PGD, data=data, out=folder / "run", progress=_Interrupts())
    with pytest.raises(KeyboardInterrupt), flatguard.Recorder(net, *data):
        _give_up(net)


WAYS: list[Callable[[nn.Module, Data, Path], None]] = [
    evaluated, of_a_target, taken_up, audited, gated, recorded, failed, interrupted,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_model_in_training_is_as_it_was(
    way: Callable[[nn.Module, Data, Path], None], tiny_data: Data, tmp_path: Path
) -> None:
    net = caller()
    gradients = [weight.grad for weight in net.parameters()]
    images, labels = tiny_data[0].clone(), tiny_data[1].clone()
    before = picture(net)
    way(net, tiny_data, tmp_path)
    for name, was, found in zip(("modes", "hooks", "tensors", "values", "gradients"), before,
                                picture(net), strict=True):  # fmt: skip
        assert found == was, name
    assert all(a is b.grad for a, b in zip(gradients, net.parameters(), strict=True))
    assert torch.equal(tiny_data[0], images)
    assert torch.equal(tiny_data[1], labels)


def test_another_device(tiny_data: Data) -> None:
    """A model that was moved has its own tensors again; without a GPU, to no data at all."""
    net = caller()
    before = picture(net)
    with restored(net):
        net.to("meta")
    assert picture(net) == before


def test_a_script_is_as_it_was(tiny_data: Data, tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    script = torch.jit.script(plain).train()
    for weight in script.parameters():
        weight.grad = torch.ones_like(weight)
    stays = {name: value.clone() for name, value in script.state_dict().items()}
    flatguard.evaluate(script, **PGD, data=tiny_data, out=tmp_path / "run")
    assert all(module.training for module in script.modules())
    assert all(bool((weight.grad == 1).all()) for weight in script.parameters())
    assert all(torch.equal(value, stays[name]) for name, value in script.state_dict().items())


def test_surrogates_are_as_they_were(tiny_data: Data, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    surrogate = make_target(other, "other", "a test")
    other.train()
    hooks = [*other._forward_hooks.items()]
    flatguard.evaluate(
        caller(), **PGD, data=tiny_data, surrogates=[surrogate], checks="standard",
        out=tmp_path / "run",
    )  # fmt: skip
    assert other.training
    assert [*other._forward_hooks.items()] == hooks
    assert all(weight.grad is None for weight in other.parameters())


def test_a_model_that_holds_a_lock_and_itself() -> None:
    """What is no module and no tensor is left alone."""
    net: Any = caller()
    net.lock, net.itself, net.table = threading.Lock(), [net], {"a": (torch.ones(2), 1)}
    with restored(net):
        net.table["a"][0].mul_(2)
    assert net.table["a"][0].tolist() == [1, 1]
