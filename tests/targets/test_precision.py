"""Models in half, bfloat16 and double precision take float32 images, and give float32 gradients."""

import copy

import pytest
import torch
from support.architectures import tiny
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.targets import Target, make_target, prepare
from flatguard.targets.first_call import call_alike
from flatguard.targets.initial import initial_copy
from flatguard.targets.normalized import Normalized
from flatguard.targets.restored import restored
from flatguard.twins.repairs import double

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
NARROW = [torch.float16, torch.bfloat16]
OTHER = [*NARROW, torch.float64]


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return tiny().eval().to(dtype)


def prepared(model: nn.Module) -> Target:
    return prepare(make_target(model.eval(), "m", "here"), IMAGES)


@pytest.mark.parametrize("dtype", OTHER)
def test_the_model_computes_in_its_own_precision(dtype: torch.dtype) -> None:
    target = prepared(network(dtype))
    logits = target.model(IMAGES)
    assert logits.dtype == torch.float32  # FAB, for one, mixes no types
    assert torch.equal(logits, network(dtype)(IMAGES.to(dtype)).float())
    assert target.head is not None
    assert target.head.name == "3"
    name = str(dtype).removeprefix("torch.")
    assert target.notes[0].startswith(f"the model takes {name} images: the attack works on float32")


@pytest.mark.parametrize("dtype", OTHER)
def test_gradients_are_in_the_images_precision(dtype: torch.dtype) -> None:
    x = IMAGES.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(prepared(network(dtype)).model(x)[:, 1].sum(), x)
    plain = IMAGES.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(network()(plain)[:, 1].sum(), plain)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", OTHER)
def test_images_are_normalised_before_the_cast(dtype: torch.dtype) -> None:
    numbers = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    found = prepared(Normalized(network(dtype), *numbers)).model(IMAGES)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in numbers)
    expected = network(dtype)(((IMAGES - mean) / std).to(dtype))
    assert torch.equal(found, expected.to(found.dtype))


@pytest.mark.parametrize("dtype", NARROW)
def test_a_copy_in_another_precision_follows(dtype: torch.dtype) -> None:
    target = prepared(network(dtype))
    assert torch.equal(copy.deepcopy(target.model).float()(IMAGES), network(dtype).float()(IMAGES))
    twin = double(target.model, IMAGES[:1])
    assert twin is not None
    logits = twin(IMAGES).decides
    assert torch.equal(logits, network(dtype).double()(IMAGES.double()))


def test_the_initial_copy_is_called_alike() -> None:
    model = Normalized(network(torch.bfloat16), (0.5,) * 3, (0.5,) * 3)
    first = initial_copy(model)
    assert first is not None
    target = prepared(model)
    call_alike(first, target.model)
    assert torch.equal(first(IMAGES), target.model(IMAGES))


def test_the_callers_model_is_left_as_it_was() -> None:
    model = Normalized(network(torch.float16), (0.5,) * 3, (0.5,) * 3).eval()
    with restored(model):
        prepared(model)
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
    assert next(model.parameters()).dtype == torch.float16


class Mixed(nn.Module):
    """Its last layer is in float32, as some models keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 16)).bfloat16()
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).float())
        return logits


class Converting(nn.Module):
    """Converts float32 images itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.bfloat16())
        return logits


def test_a_model_of_several_precisions() -> None:
    target = prepared(Mixed())
    assert "takes bfloat16 images" in target.notes[0]
    assert target.model(IMAGES).dtype == torch.float32


def test_a_model_that_converts_images_itself() -> None:
    target = prepared(Converting())
    assert "returns bfloat16 for float32 images" in target.notes[0]
    assert target.model(IMAGES).dtype == torch.float32


def test_a_traced_model_without_parameters() -> None:
    traced = torch.jit.freeze(torch.jit.trace(network(torch.bfloat16), IMAGES.bfloat16()))
    from flatguard.targets.programs import Program

    target = prepared(Program(traced))
    assert "takes bfloat16 images" in target.notes[-1]


def test_what_is_wrong_beside_the_precision_is_named() -> None:
    with pytest.raises(ModelError, match="mat1 and mat2 shapes cannot be multiplied"):
        prepare(make_target(network(torch.float16), "m", "here"), IMAGES[:, :1])


def test_float32_models_have_no_hook_for_it() -> None:
    model = network()
    target = prepare(make_target(model, "m", "here"), IMAGES)
    assert target.notes == ()
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
