"""The head is found by evaluation, whatever stands behind it, and never guessed."""

import math

import pytest
import torch
from torch import nn

import flatguard
from flatguard.data.dataset import Batch
from flatguard.targets import Target
from flatguard.targets.head import find_head, relative_mismatch


class Behind(nn.Module):
    """A small network with something done to its logits."""

    def __init__(self, what: str):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU())
        self.head = nn.Linear(16, 5)
        self.decoy = nn.Linear(5, 5)
        self.what = what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.head(self.body(x))
        if self.what == "twice":
            return z + self.head(self.body(1 - x))
        return {
            "nothing": lambda: z,
            "scaled": lambda: 15.0 * z,
            "log_softmax": lambda: z.log_softmax(1),
            "shifted": lambda: z - z.amax(1, keepdim=True),
            "negated": lambda: -z,
            "softmax": lambda: z.softmax(1),
            "clipped": lambda: z.clamp(-0.1, 0.1),
            "per_sample": lambda: z * (1 + torch.arange(len(z))[:, None]),
            "bias_after": lambda: z + torch.arange(5.0),
            "second_layer": lambda: self.decoy(z),
        }[self.what]()


IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("what", "name", "scale"),
    [
        ("nothing", "head", 1.0),
        ("scaled", "head", 15.0),
        ("log_softmax", "head", 1.0),
        ("shifted", "head", 1.0),
        ("second_layer", "decoy", 1.0),
    ],
)
def test_found(what: str, name: str, scale: float) -> None:
    search = find_head(Behind(what), IMAGES)
    assert search.head is not None
    assert search.head.name == name
    assert search.head.scale == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize(
    "what", ["negated", "softmax", "clipped", "per_sample", "bias_after", "twice"]
)
def test_not_found_and_why(what: str) -> None:
    search = find_head(Behind(what), IMAGES)
    assert search.head is None
    assert search.reason
    assert "'head'" in search.reason


def test_a_name_is_proved_too() -> None:
    assert find_head(Behind("nothing"), IMAGES, name="head").head is not None
    assert find_head(Behind("nothing"), IMAGES, name="body.1").head is None
    missing = find_head(Behind("nothing"), IMAGES, name="fc")
    assert missing.reason is not None
    assert "no layer fc" in missing.reason
    assert "decoy" in missing.reason


def test_a_one_by_one_convolution_is_a_linear_layer() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(body, nn.Conv2d(8, 4, 1), nn.Flatten())
    search = find_head(model, IMAGES)
    assert search.head is not None
    assert search.head.name == "1"
    with flatguard.Recorder(model, IMAGES, torch.zeros(6, dtype=torch.long)) as recorder:
        model(IMAGES)
    phi = body(IMAGES).flatten(1)
    assert recorder.trajectory()["feature_norm"].tolist() == pytest.approx(
        phi.norm(dim=1).tolist(), rel=1e-5
    )


def test_a_model_without_linear_layers() -> None:
    search = find_head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGES)
    assert search.head is None
    assert search.reason == "the model has no linear layer that hooks can see"


def test_constant_logits_prove_nothing() -> None:
    model = Behind("nothing")
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    assert find_head(model, IMAGES).head is None


def test_kappa_does_not_depend_on_where_the_factor_stands() -> None:
    """15 · head(φ) is the classifier whose head has 15 W: κ must be the same."""
    outside, inside = Behind("scaled"), Behind("nothing")
    with torch.no_grad():
        inside.head.weight.mul_(15.0)
        inside.head.bias.mul_(15.0)
    frames = []
    for model in (outside, inside):
        with flatguard.Recorder(model, IMAGES, torch.zeros(6, dtype=torch.long)) as recorder:
            model(IMAGES)
        frames.append(recorder.trajectory())
    assert frames[0]["log_kappa"].tolist() == pytest.approx(
        frames[1]["log_kappa"].tolist(), abs=1e-4
    )
    # tr H is in the layer's own W, where the factor counts twice.
    ratio = (frames[0]["trace"] / frames[1]["trace"]).tolist()
    assert ratio == pytest.approx([225.0] * 6, rel=1e-4)


def test_the_demo(demo: Target, demo_batch: Batch) -> None:
    assert demo.head is not None
    assert demo.head.name == "linear"
    weight = demo.head.module.weight
    assert demo.head.log_weight_norm_squared() == pytest.approx(
        2 * math.log(weight.detach().norm())
    )


def test_mismatch_is_relative_to_the_spread_of_the_logits() -> None:
    z = torch.tensor([[0.0, 1000.0], [0.0, 1.0]])
    off = relative_mismatch(z, z + torch.tensor([[0.0, 0.1], [0.0, 0.1]]), 1.0)
    assert off.tolist() == pytest.approx([1e-4, 0.1], rel=1e-3)


@pytest.mark.parametrize("shape", ["column", "vector", "probability"])
def test_a_single_output_is_the_head_of_two_classes(shape: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 1)
    end = {"column": nn.Identity(), "vector": nn.Flatten(0), "probability": nn.Sigmoid()}[shape]
    model = nn.Sequential(nn.Flatten(), layer, end).eval()
    target = flatguard.targets.prepare(flatguard.targets.make_target(model, "one", "here"), IMAGES)
    assert target.head is not None
    assert target.head.name == "1"
    assert torch.equal(target.head.weight, torch.cat([torch.zeros(1, 48), layer.weight]))
    recorder = flatguard.Recorder(target.model, IMAGES, torch.zeros(6).long(), head=target.head)
    with recorder:
        target.model(IMAGES)
    found = recorder.trajectory()["log_kappa"]
    for image, log_kappa in zip(IMAGES.double().flatten(1), found, strict=True):
        assert log_kappa == pytest.approx(math.log(dense_kappa(layer, image)), abs=1e-5)


def dense_kappa(layer: nn.Linear, features: torch.Tensor) -> float:
    """κ of the two-class head (0, w), from the whole Hessian of its cross-entropy, in float64."""
    row = layer.weight.detach().double()
    weight = torch.cat([torch.zeros_like(row), row])
    bias = torch.tensor([0.0, float(layer.bias.detach())], dtype=torch.float64)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        logits = flat.view_as(weight) @ features + bias
        return nn.functional.cross_entropy(logits[None], torch.tensor([0]))

    hessian = torch.autograd.functional.hessian(loss, weight.flatten())
    return float(weight.square().sum() * torch.as_tensor(hessian).trace())
