"""What classifiers return: objects, mappings, tuples, one value an image; and what is none.

Renaming the output changes nothing: logits, gradients and head are those of the bare model.
"""

import copy
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.architectures import tiny
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.targets import make_target, prepare
from flatguard.targets.first_call import call_alike
from flatguard.targets.initial import FreshEachCall, initial_copy
from flatguard.targets.restored import restored

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Named = namedtuple("Named", ["features", "logits"])


@dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] = ()


class ModelOutput(OrderedDict[str, Any]):
    """As transformers has it: an ordered dictionary whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Returning(nn.Module):
    """A network whose logits and images go through a function of the test."""

    def __init__(self, net: nn.Module, returned: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.net, self.returned = net, returned

    def forward(self, x: Tensor) -> Any:
        return self.returned(self.net(x), x)


RENAMED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dataclass": lambda z, x: Answer(None, z, (x,)),
    "ModelOutput": lambda z, x: ModelOutput(logits=z, hidden_states=(x,)),
    "dictionary": lambda z, x: {"features": x, "logits": z},
    "only tensor": lambda z, x: {"out": z, "kind": "image"},
    "tuple": lambda z, x: (z, x),
    "list": lambda z, x: [z, x],
    "named tuple": lambda z, x: Named(x, z),
    "nested": lambda z, x: ({"logits": z}, x),
    "distribution": lambda z, x: torch.distributions.Categorical(probs=z.softmax(1)),
    "1x1 map": lambda z, x: z[:, :, None, None],
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return tiny().eval()


def prepared(returned: Callable[[Tensor, Tensor], Any], output: str | None = None) -> Any:
    target = make_target(Returning(network(), returned).eval(), "m", "here")
    return prepare(type(target)(**{**vars(target), "output": output}), IMAGES)


def gradient(model: nn.Module) -> Tensor:
    x = IMAGES.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    return found


@pytest.mark.parametrize("kind", sorted(set(RENAMED) - {"distribution"}))
def test_a_renamed_output_is_the_bare_models(kind: str) -> None:
    target, bare = prepared(RENAMED[kind]), network()
    assert torch.equal(target.model(IMAGES), bare(IMAGES))
    assert torch.equal(gradient(target.model), gradient(bare))
    assert target.head is not None
    assert target.head.name == "net.3"
    plain = make_target(Returning(network(), lambda z, x: z), "m", "here")
    assert target.weights_sha256 == plain.weights_sha256


def test_a_distribution_has_logits() -> None:
    logits = prepared(RENAMED["distribution"]).model(IMAGES)
    assert torch.allclose(logits, network()(IMAGES).log_softmax(1), atol=1e-6)


def test_the_note_says_what_was_taken() -> None:
    assert "'logits' of the Answer" in prepared(RENAMED["dataclass"]).notes[0]
    note = prepared(lambda z, x: (x.mean((2, 3)), z)).notes[0]
    assert "first of 2 outputs" in note
    assert "--output takes another one: 1 (6, 4)" in note


@pytest.mark.parametrize("wanted", ["1", "-1"])
def test_one_of_several_by_position(wanted: str) -> None:
    target = prepared(lambda z, x: (x.mean((2, 3)), z), wanted)
    assert torch.equal(target.model(IMAGES), network()(IMAGES))


@pytest.mark.parametrize("wanted", ["main", "aux"])
def test_one_of_several_by_name(wanted: str) -> None:
    target = prepared(lambda z, x: {"main": z, "aux": -z}, wanted)
    sign = 1 if wanted == "main" else -1
    assert torch.equal(target.model(IMAGES), sign * network()(IMAGES))


def test_copies_read_their_output_too() -> None:
    returned = RENAMED["dictionary"]
    model = Returning(network(), returned)
    first = initial_copy(model)
    assert first is not None
    target = prepare(make_target(model, "m", "here"), IMAGES)
    call_alike(first, target.model)
    for each in (copy.deepcopy(target.model), FreshEachCall(first)):
        assert torch.equal(each(IMAGES), network()(IMAGES))


def test_the_callers_model_is_left_as_it_was() -> None:
    model = Returning(network(), RENAMED["dictionary"])
    with restored(model):
        prepare(make_target(model, "m", "here"), IMAGES)
        assert isinstance(model(IMAGES), Tensor)
    assert isinstance(model(IMAGES), dict)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_looking_twice_changes_nothing() -> None:
    target = prepared(RENAMED["tuple"])
    again = prepare(target, IMAGES)
    assert torch.equal(again.model(IMAGES), network()(IMAGES))


def test_a_later_call_that_returns_something_else() -> None:
    model = Returning(network(), lambda z, x: {"logits": z} if len(x) > 1 else (z,))
    target = prepare(make_target(model, "m", "here"), IMAGES)
    with pytest.raises(
        ModelError, match="expected logits in output logits, as in the first call, got tu"
    ):
        target.model(IMAGES[:1])


def test_a_part_in_inference_mode() -> None:
    class Inferring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        @torch.inference_mode()
        def forward(self, x: Tensor) -> Any:
            return {"logits": self.net(x)}

    logits = prepare(make_target(Inferring(), "m", "here"), IMAGES).model(IMAGES)
    logits += 1  # as attacks do


@pytest.mark.parametrize("shape", [(-1, 1), (-1,), (-1, 1, 1, 1)])
def test_one_logit_is_two_classes(shape: tuple[int, ...]) -> None:
    target = prepared(lambda z, x: z[:, 0].reshape(shape))
    z = network()(IMAGES)[:, 0]
    assert torch.equal(target.model(IMAGES), torch.stack([torch.zeros_like(z), z], dim=1))
    assert target.num_classes == 2
    assert "read as the logit of class 1" in target.notes[-1]
    assert target.model(IMAGES[:1]).shape == (1, 2)


def test_a_sigmoid_is_two_classes() -> None:
    target = prepared(lambda z, x: z[:, 0].sigmoid())
    z = network()(IMAGES)[:, 0]
    assert torch.allclose(target.model(IMAGES).softmax(1)[:, 1], z.sigmoid())
    assert "read as the probability of class 1" in target.notes[-1]


def test_a_logit_that_happens_to_lie_within_0_and_1() -> None:
    target = prepared(lambda z, x: 0.5 + z[:, 0] / 100)
    assert "read as the logit of class 1" in target.notes[-1]


def test_a_saturated_sigmoid_has_finite_logits_and_the_same_decisions() -> None:
    def saturated(z: Tensor, x: Tensor) -> Tensor:
        steps = torch.tensor([-1e9, -30.0, -1e-7, 1e-7, 30.0, 1e9])[: len(x)]
        return (steps + 0 * z[:, 0]).sigmoid()

    model = prepared(saturated).model
    logits = model(IMAGES)
    assert bool(logits.isfinite().all())
    assert logits.argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1]
    assert bool(gradient(model).isfinite().all())


REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "views": (lambda z, x: z[:, None].expand(-1, 5, -1), r"got \(6, 5, 4\): several rows an im"),
    "flat views": (lambda z, x: z.repeat(5, 1), r"got \(30, 4\): 5 rows an image"),
    "dense": (lambda z, x: {"out": z[:, :, None, None].expand(-1, -1, 4, 4)}, "each pixel"),
    "boxes": (lambda z, x: [{"boxes": row, "scores": row} for row in z], "a detection model"),
    "one each": (lambda z, x: list(z), "a list of one tensor an image"),
    "two": (lambda z, x: {"a": z, "b": z}, r"dict of a \(6, 4\), b \(6, 4\); name .*--output a"),
    "later": (lambda z, x: (None, z), "tuple of 0 NoneType, 1 .*--output 1"),
    "features first": (lambda z, x: (x, z), r"got \(6, 3, 8, 8\).*--output takes .*: 1 \(6, 4\)"),
    "decisions": (lambda z, x: z.argmax(1), r"got \(6,\) of int64: decisions"),
    "classes": (lambda z, x: z.argmax(1).float() + 1, r"got \(6,\) of float32: decisions"),
    "array": (lambda z, x: z.detach().numpy(), "got ndarray"),
    "nothing": (lambda z, x: None, "got NoneType"),
    "text": (lambda z, x: "cat", "got str"),
    "empty": (lambda z, x: (), "got tuple"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_classifier_is_refused_by_name(kind: str) -> None:
    returned, expected = REFUSED[kind]
    with pytest.raises(ModelError, match=expected) as error:
        prepared(returned)
    assert "\n" not in str(error.value)


def test_a_name_that_the_output_does_not_have() -> None:
    for wanted in ("other", "2", "-3"):
        with pytest.raises(ModelError, match=f"which has no '{wanted}' for --output"):
            prepared(RENAMED["tuple"], wanted)
