"""Twins decide as their target, bit by bit, and lead where its own gradient does not."""

import pytest
import torch
from support.architectures import tiny
from support.defences import After, Before, Negated, bits, jpeg
from torch import Tensor, nn

from flatguard.targets.normalized import Normalized
from flatguard.twins.repairs import Repair, RepairedTwin, double, fit_front, repairs

CASES = {
    "rounded": (lambda net: Before(net, bits(3)), "cutting"),
    "lying": (lambda net: Before(net, Negated.apply), "function"),
    "jpeg": (lambda net: Before(net, jpeg), "front"),
    "jpeg, normalised": (
        lambda net: Before(Normalized(net, (0.5,) * 3, (0.2,) * 3), jpeg), "front"
    ),
    "squashed": (lambda net: After(net, lambda z: torch.tanh(1000 * z)), "saturating"),
    "rounded logits": (lambda net: After(net, lambda z: (100 * z).round()), "cutting"),
    "probabilities": (lambda net: After(net, lambda z: (2 * z).exp() / (2 * z).exp().sum(1, True)),
                      "logarithm"),
    "detached logits": (lambda net: After(net, lambda z: z.detach() * 2 + 0 * z), "head"),
}  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    smooth = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(smooth, size=(8, 8), mode="bilinear")


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return tiny().eval()


def gradient(twin: object, images: Tensor) -> Tensor:
    x = images.clone().requires_grad_(True)
    outputs = twin(x)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, outputs.loss.shape[1])
    return torch.autograd.grad((outputs.loss * weights).sum(), x)[0]


@pytest.mark.parametrize("case", CASES)
def test_a_repair_decides_as_its_target_and_leads_as_the_bare_network(
    case: str, net: nn.Module, images: Tensor
) -> None:
    defend, name = CASES[case]
    model = defend(net).eval()
    found = {repair.name: repair for repair in repairs(model, images)}
    assert name in found
    with torch.no_grad():
        expected = model(images)
    bare = gradient(RepairedTwin(net), images).flatten()
    for repair in found.values():
        x = images.clone().requires_grad_(True)
        assert torch.equal(repair.twin(x).decides.detach(), expected)
    repaired = gradient(found[name].twin, images).flatten()
    assert torch.cosine_similarity(repaired, bare, dim=0) > 0.3


def test_an_honest_network_needs_no_repair(net: nn.Module, images: Tensor) -> None:
    assert repairs(net, images) == []
    normalised = Normalized(net, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()
    assert repairs(normalised, images) == []


def test_no_hook_stays(net: nn.Module, images: Tensor) -> None:
    model = Before(net, jpeg)
    found: list[Repair] = repairs(model, images)
    for repair in found:
        gradient(repair.twin, images)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_a_front_is_the_affine_function(net: nn.Module, images: Tensor) -> None:
    def change(x: Tensor) -> Tensor:
        return (2.0 * x - 0.5).detach() + 0.0 * x

    front = fit_front(Before(net, change), images)
    assert front is not None
    assert torch.allclose(front.slope, torch.tensor(2.0), atol=1e-4)
    assert torch.allclose(front.offset, torch.tensor(-0.5), atol=1e-4)


def test_a_front_that_explains_nothing_is_none(net: nn.Module, images: Tensor) -> None:
    def change(x: Tensor) -> Tensor:
        return torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) + 0.0 * x

    assert fit_front(Before(net, change), images) is None


def test_float64_where_the_model_takes_it(net: nn.Module, images: Tensor) -> None:
    twin = double(net, images)
    assert twin is not None
    logits = twin(images).decides
    assert logits.dtype == torch.float64
    assert torch.allclose(logits.float(), net(images), atol=1e-5)
    assert next(net.parameters()).dtype == torch.float32

    def float32_only(x: Tensor) -> Tensor:
        return x.float()

    assert double(Before(net, float32_only), images) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_head_is_found_under_noise_that_turns_decisions_over(
    seed: int, net: nn.Module, images: Tensor
) -> None:
    many = images.repeat(3, 1, 1, 1)
    with torch.no_grad():
        top = net(many).topk(2, dim=1).values
    scale = float(2.0 * (top[:, 0] - top[:, 1]).median())
    noisy = After(net, lambda z: z.detach() + 0 * z + scale * torch.randn(1, z.shape[1])).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        calls = torch.stack([noisy(many).argmax(1) for _ in range(20)])
    assert float((calls != calls.mode(0).values).double().mean()) > 0.1
    assert "head" in {repair.name for repair in repairs(noisy, many)}


def test_noise_on_the_image_leaves_the_head_as_it_is(net: nn.Module, images: Tensor) -> None:
    noisy = Before(net, lambda x: x + 0.05 * torch.randn_like(x)).eval()
    assert "head" not in {repair.name for repair in repairs(noisy, images)}


@pytest.mark.parametrize(
    "squash",
    [
        lambda z: (1e4 * z).softmax(1),
        lambda z: 100 * (1e4 * z).softmax(1) - 3,
        lambda z: torch.tanh(1e4 * z),
        lambda z: (1e4 * z).clamp(-1, 1),
    ],
    ids=["softmax", "percent", "tanh", "clamp"],
)
def test_classes_that_saturation_makes_equal_keep_their_order_in_the_loss(
    squash, net: nn.Module, images: Tensor
) -> None:
    model = After(net, squash).eval()
    (found,) = [one for one in repairs(model, images) if one.name == "saturating"]
    outputs = found.twin(images.clone().requires_grad_(True))
    assert torch.equal(outputs.decides.detach(), model(images).detach())
    assert torch.equal(outputs.loss.argsort(1), net(images).argsort(1))


@pytest.mark.parametrize(
    "squash",
    [lambda z: torch.log(z.softmax(1)), lambda z: z + z.softmax(1), lambda z: -z.softmax(1)],
    ids=["log", "sum", "turned over"],
)
def test_what_is_computed_from_a_saturated_value_is_differentiated_itself(
    squash, net: nn.Module, images: Tensor
) -> None:
    twin = RepairedTwin(After(net, squash).eval(), groups={"saturating"})
    outputs = twin(images.clone().requires_grad_(True))
    assert torch.equal(outputs.loss, outputs.decides)
    assert not outputs.scale_free
