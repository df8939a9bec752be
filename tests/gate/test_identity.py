"""The identity of a request: what changes it, what does not, and what a fingerprint adds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support import digits
from torch import nn

import flatguard
from flatguard.evaluation import resolve
from flatguard.gate.identity import fingerprint, identity_of

FGSM = "torchattacks:FGSM"


@pytest.fixture
def request_of(digits_files: Path) -> dict[str, Any]:
    return {
        "model": str(digits_files / "digits.safetensors"), "arch": f"{digits.__file__}:digits_net",
        "data": str(digits_files / "digits.npz"), "attack": "torchattacks:PGD", "eps": 0.1,
        "attack_args": {"steps": 5}, "n_examples": 24, "batch_size": 12,
    }  # fmt: skip


def test_whatever_decides_the_result_changes_the_identity(
    request_of: dict[str, Any], tmp_path: Path
) -> None:
    copied = tmp_path / "digits.py"
    copied.write_text(Path(digits.__file__).read_text() + "\n# another file\n")
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"eps": 0.2}, {"n_examples": 20}, {"batch_size": 8},
        {"checks": "standard"}, {"attack_args": {"steps": 6}}, {"logit_scale": 2.0},
        {"arch": f"{copied}:digits_net"}, {"surrogates": (str(one),)},
        {"surrogates": (str(other),)},
    ]  # fmt: skip
    found = [identity_of(resolve(**{**request_of, **change})) for change in changes]
    assert all(one not in found[:index] for index, one in enumerate(found))


def test_places_verdict_and_limits_are_no_part_of_the_identity(
    request_of: dict[str, Any], tmp_path: Path
) -> None:
    moved = {name: str(tmp_path / Path(request_of[name]).name) for name in ("model", "data")}
    for name, file in moved.items():
        Path(file).write_bytes(Path(request_of[name]).read_bytes())
    one, same = tmp_path / "one.safetensors", tmp_path / "same.safetensors"
    one.write_bytes(b"one")
    same.write_bytes(b"one")
    wanted = identity_of(resolve(**request_of, surrogates=(str(one),)))
    changed = {**request_of, **moved, "tolerance": 0.1, "max_forwards": 10**6}
    assert identity_of(resolve(**changed, surrogates=(str(same),))) == wanted


def test_other_weights_and_other_data_are_another_identity() -> None:
    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()

    def identity(model: nn.Module, images: torch.Tensor) -> dict[str, Any]:
        return identity_of(resolve(model, FGSM, data=(images, labels[:12]), eps=0.1))

    first = identity(net, images[:12])
    assert identity(net, images[:12]) == first
    assert identity(net, images[:12].flip(0)) != first
    with torch.no_grad():
        next(net.parameters())[0] += 1e-6
    assert identity(net, images[:12]) != first


class Quiet(torch.autograd.Function):
    """The identity, with its gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None


class Behind(nn.Module):
    """A value in a closure: no file, no weight and no structure shows it."""

    def __init__(self, net: nn.Module, factor: float):
        super().__init__()
        self.net = net
        self.change = lambda x: Quiet.apply(x, factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(self.change(x))
        return logits


def test_the_same_weights_with_other_gradients_are_another_identity() -> None:
    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()

    def identity(factor: float) -> dict[str, Any]:
        data = (images[:12], labels[:12])
        return identity_of(resolve(Behind(net, factor), FGSM, data=data, eps=0.1))

    assert identity(1.0) == identity(1.0) != identity(0.0)


class Guarded(nn.Module):
    """Logits times `factor` where an image is further from the grid of clean ones than `above`."""

    def __init__(self, net: nn.Module, above: float, factor: float):
        super().__init__()
        self.net, self.above, self.factor = net, above, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        away = (x - (x * 16).round() / 16).abs().flatten(1).amax(1)[:, None]
        return torch.where(away > self.above, logits * self.factor, logits)


def test_a_fingerprint_shows_attributes_that_act_on_attacked_images_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()
    data = (images[:24], labels[:24])
    run = flatguard.evaluate(
        Guarded(net, 0.02, 1.0), FGSM, data=data, eps=0.1, batch_size=12, checks="fast",
        out=tmp_path / "run",
    )  # fmt: skip

    def found(above: float, factor: float) -> tuple[dict[str, Any], str]:
        model = Guarded(net, above, factor)
        context = resolve(model, FGSM, data=data, eps=0.1, batch_size=12)
        return identity_of(context), fingerprint(context, run)

    identity, answers = found(0.02, 1.0)
    assert found(0.02, 1.0) == (identity, answers)
    assert found(0.02, 0.5)[0] == identity
    assert found(0.02, 0.5)[1] != answers
    assert found(0.02, -1.0)[1] != answers


def test_random_models_have_a_fingerprint_if_they_use_torchs_generator(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def __init__(self, net: nn.Module):
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.net(x + 0.1 * torch.randn_like(x))
            return logits

    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()
    data = (images[:12], labels[:12])
    run = flatguard.evaluate(Noisy(net), FGSM, data=data, eps=0.1, checks="none",
                             out=tmp_path / "run")  # fmt: skip
    context = resolve(Noisy(net), FGSM, data=data, eps=0.1)
    assert fingerprint(context, run) == fingerprint(context, run)
