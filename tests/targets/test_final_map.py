"""The final linear map is found among the operations, and proven from φ and W."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flatguard
from flatguard.errors import UsageError
from flatguard.targets import Target, make_target, prepare
from flatguard.targets.final_map import find_final_map
from flatguard.targets.head import inputs_of
from flatguard.targets.operation_head import OperationHead

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6) % 5
K, D = 5, 8


class Net(nn.Module):
    """A small body, parameters for a head, and a function that computes the logits from both."""

    def __init__(self, logits: Callable[[Net, Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.logits = logits
        self.map = nn.Sequential(nn.Conv2d(3, D, 3), nn.ReLU())
        self.w = nn.Parameter(torch.randn(K, D))
        self.b = nn.Parameter(torch.randn(K))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.conv = nn.Conv2d(D, K, 1)
        self.one, self.two = nn.Linear(D, K), nn.Linear(D, K)
        self.made = nn.Linear(D, K * D)
        self.members = nn.Parameter(torch.randn(3, K, D))
        self.eval()

    def phi(self, x: Tensor) -> Tensor:
        return self.map(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self, x)


def clip(m: Net, x: Tensor) -> Tensor:
    return m.log_scale.exp() * (F.normalize(m.phi(x), dim=1) @ F.normalize(m.w, dim=1).t())


def clip_by_text(m: Net, x: Tensor) -> Tensor:
    text = torch.matmul(F.normalize(m.w, dim=1), F.normalize(m.phi(x), dim=1).t())
    return (text * m.log_scale.exp() + m.log_scale).t()


def cosine(m: Net, x: Tensor) -> Tensor:
    return F.linear(4.0 * F.normalize(m.phi(x), dim=1), F.normalize(m.w, dim=1))


def divided_by_norms(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return m.log_scale * (f @ m.w.t()) / (f.norm(dim=1, keepdim=True) * m.w.norm(dim=1))


def divided_layer(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return F.linear(f, m.w) / m.w.norm(dim=1)


def functional(m: Net, x: Tensor) -> Tensor:
    return F.linear(m.phi(x), m.w, m.b)


def bias_after(m: Net, x: Tensor) -> Tensor:
    return m.phi(x) @ m.w.t() + m.b


def einsum(m: Net, x: Tensor) -> Tensor:
    return torch.einsum("nd,kd->nk", m.phi(x), m.w).log_softmax(dim=1)


def bmm(m: Net, x: Tensor) -> Tensor:
    return torch.bmm(m.w.expand(len(x), K, D), m.phi(x)[:, :, None])[:, :, 0]


def addmm(m: Net, x: Tensor) -> Tensor:
    return torch.addmm(m.b, m.phi(x), m.w.t(), alpha=2)


def prototypes(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return 2 * f @ m.w.t() - f.square().sum(1, keepdim=True) - m.w.square().sum(1)


def pooled_convolution(m: Net, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(m.conv(m.map(x)), 1).flatten(1)


def ensemble(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return (m.one(f) + m.two(f.sin().square())) / 2


def member_axis(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return torch.bmm(torch.stack([f, f.sin(), f.cos()]), m.members.transpose(1, 2)).mean(dim=0)


def two_views(m: Net, x: Tensor) -> Tensor:
    return (m.one(m.phi(x)) + m.one(m.phi(x.square()))) / 2


def features_overwritten(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x) * 1
    z = f @ m.w.t()
    with torch.no_grad():
        f.zero_()
    return z


def a_mode_around_the_body(m: Net, x: Tensor) -> Tensor:
    with torch.device("cpu"):
        f = m.phi(x)
    return f @ m.w.t()


HEADS: dict[Callable[[Net, Tensor], Tensor], Callable[[Net, Tensor], tuple[Tensor, Tensor]]] = {
    clip: lambda m, x: (F.normalize(m.phi(x), dim=1), m.log_scale.exp() * F.normalize(m.w, dim=1)),
    clip_by_text: lambda m, x: HEADS[clip](m, x),
    cosine: lambda m, x: (4.0 * F.normalize(m.phi(x), dim=1), F.normalize(m.w, dim=1)),
    divided_by_norms: lambda m, x: (
        F.normalize(m.phi(x), dim=1),
        m.log_scale * F.normalize(m.w, dim=1),
    ),
    divided_layer: lambda m, x: (m.phi(x), F.normalize(m.w, dim=1)),
    functional: lambda m, x: (m.phi(x), m.w),
    bias_after: lambda m, x: (m.phi(x), m.w),
    einsum: lambda m, x: (m.phi(x), m.w),
    bmm: lambda m, x: (m.phi(x), m.w),
    addmm: lambda m, x: (m.phi(x), 2 * m.w),
    prototypes: lambda m, x: (m.phi(x), 2 * m.w),
    pooled_convolution: lambda m, x: (m.phi(x), m.conv.weight.flatten(1)),
    ensemble: lambda m, x: (
        torch.cat([m.phi(x), m.phi(x).sin().square()], dim=1),
        torch.cat([m.one.weight / 2, m.two.weight / 2], dim=1),
    ),
    member_axis: lambda m, x: (
        torch.cat([m.phi(x), m.phi(x).sin(), m.phi(x).cos()], dim=1),
        m.members.permute(1, 0, 2).reshape(K, 3 * D) / 3,
    ),
    two_views: lambda m, x: ((m.phi(x) + m.phi(x.square())) / 2, m.one.weight),
    features_overwritten: lambda m, x: (m.phi(x), m.w),
    a_mode_around_the_body: lambda m, x: (m.phi(x), m.w),
}
"""Logits, and the features φ and weights W that a person reads from the code."""


def dense_kappa(m: Net, row: int) -> float:
    """‖W‖² times the trace of a dense float64 Hessian of the loss in W."""
    exact = copy.deepcopy(m).double()
    with torch.no_grad():
        phi, weight = HEADS[m.logits](exact, IMAGES.double())
        logits = exact(IMAGES.double())

    def loss(w: Tensor) -> Tensor:
        moved = logits[row] + (w - weight) @ phi[row]
        return F.cross_entropy(moved[None], LABELS[row : row + 1])

    hessian = torch.autograd.functional.hessian(loss, weight)
    trace = hessian.reshape(weight.numel(), weight.numel()).trace()
    return float(weight.detach().square().sum() * trace)


@pytest.mark.parametrize("logits", HEADS, ids=lambda f: f.__name__)
def test_kappa_is_that_of_a_dense_hessian(logits: Callable[[Net, Tensor], Tensor]) -> None:
    model = Net(logits)
    with flatguard.Recorder(model, IMAGES, LABELS) as recorder:
        model(IMAGES)
        model(IMAGES[:1])
    assert isinstance(recorder.head, OperationHead)
    log_kappa = recorder.trajectory()["log_kappa"].to_numpy()
    for row in (0, 1):
        assert math.exp(log_kappa[row]) == pytest.approx(dense_kappa(model, row), rel=1e-5)
    assert log_kappa[6] == pytest.approx(log_kappa[0], abs=1e-4)  # alone in its batch


def weights_from_the_image(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return torch.einsum("nd,nkd->nk", f, m.made(f).view(-1, K, D))


def weights_from_the_batch(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return f @ (m.w * f.mean()).t()


def masked(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return (f @ m.w.t()) * (f.sum(1, keepdim=True) > f.sum(1).mean())


def clamped_in_place(m: Net, x: Tensor) -> Tensor:
    z = m.phi(x) @ m.w.t()
    return z.clamp_(-0.1, 0.1)


def one_class_masked(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    z = f @ m.w.t()
    z[:, 2] = torch.where(x[:, 0, 0, 0] > 0.5, z[:, 2], 0.0)
    return z


def mixed_probabilities(m: Net, x: Tensor) -> Tensor:
    f = m.phi(x)
    return (m.one(f).softmax(1) + m.two(f).softmax(1)) / 2


def distances(m: Net, x: Tensor) -> Tensor:
    return -torch.cdist(m.phi(x), m.w)


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        (weights_from_the_image, "einsum in the model, depend on the image"),
        (weights_from_the_batch, "matmul in the model, depend on the image"),
        (masked, "no linear"),
        (clamped_in_place, "no linear"),
        (one_class_masked, "no linear"),
        (mixed_probabilities, "'two'"),
        (distances, "no linear"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_not_proven_and_why(logits: Callable[[Net, Tensor], Tensor], reason: str) -> None:
    search = find_final_map(Net(logits), IMAGES)
    assert search.head is None
    assert search.reason is not None
    assert reason in search.reason


class Odd(nn.Module):
    """A zero-shot model that accepts few images, or counts its calls."""

    def __init__(self, most: int, darkest: float):
        super().__init__()
        self.net, self.most, self.darkest, self.calls = Net(clip), most, darkest, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.most or float(x.mean()) < self.darkest:
            raise ValueError("not this image")
        return self.net(x)


def test_a_model_that_fails_on_other_images_still_runs() -> None:
    bright = 0.7 + 0.3 * IMAGES
    assert find_final_map(Odd(99, 0.5).eval(), bright).head is None
    assert find_final_map(Odd(99, 0.0).eval(), bright).head is not None


def test_the_search_among_operations_leaves_no_call_behind() -> None:
    model = Odd(99, 0.0).eval()
    assert find_final_map(model, IMAGES).head is not None
    assert model.calls == 1, "the search among layers"


def test_an_offset_does_not_explain_logits_that_hardly_vary() -> None:
    def hardly(m: Net, x: Tensor) -> Tensor:
        return 100 * m.b + 1e-3 * torch.tanh(m.phi(x) @ m.w.t())

    assert find_final_map(Net(hardly), IMAGES).head is None


def test_a_hook_on_the_layer_is_not_part_of_a_proven_head() -> None:
    model = Net(lambda m, x: m.one(m.phi(x)))
    assert find_final_map(model, IMAGES).head is not None
    handle = model.one.register_forward_hook(lambda m, i, o: o.clamp(-0.1, 0.1))
    assert find_final_map(model, IMAGES).head is None
    handle.remove()


class Gated(nn.Module):
    """A functional head whose mask is switched on later."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.masks = Net(clip), False

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z * (torch.arange(len(z)) % 2)[:, None] if self.masks else z


def test_every_recorded_call_is_proven_again() -> None:
    model = Gated().eval()
    with flatguard.Recorder(model, IMAGES, LABELS) as recorder:
        model(IMAGES)
        model.masks = True
        model(IMAGES)
    missing = recorder.trajectory()["log_kappa"].isna().tolist()
    assert missing == [False] * 6 + [True, False] * 3


@pytest.mark.parametrize("logits", [clip, ensemble, clip_by_text], ids=lambda f: f.__name__)
@pytest.mark.parametrize("count", [1, K, D])
def test_few_images_and_as_many_as_classes(
    logits: Callable[[Net, Tensor], Tensor], count: int
) -> None:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    search = find_final_map(Net(logits), images)
    assert search.head is not None
    _, weight = HEADS[logits](Net(logits), images)
    found = float(search.head.weight.norm())
    assert found == pytest.approx(float(weight.detach().norm()), rel=1e-4)


def test_the_model_answers_alike_and_keeps_no_hook() -> None:
    model = Net(clip)
    before, hooks = model(IMAGES), [len(m._forward_hooks) for m in model.modules()]
    with flatguard.Recorder(model, IMAGES, LABELS) as recorder:
        inside = model(IMAGES)
    assert torch.equal(before, inside)
    assert recorder.head is not None
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert torch.overrides._get_current_function_mode() is None


def test_an_error_in_the_model_leaves_no_mode() -> None:
    def breaks(m: Net, x: Tensor) -> Tensor:
        if len(x) == 3:
            raise RuntimeError("three images")
        return clip(m, x)

    model = Net(breaks)
    with flatguard.Recorder(model, IMAGES, LABELS) as recorder:
        with pytest.raises(RuntimeError, match="three images"):
            model(IMAGES[:3])
        assert torch.overrides._get_current_function_mode() is None
        model(IMAGES)
    assert recorder.trajectory()["log_kappa"].notna().all()


def test_features_keep_their_graph() -> None:
    model = Net(clip)
    head = find_final_map(model, IMAGES).head
    assert head is not None
    x = IMAGES.clone().requires_grad_()
    with inputs_of(head, attached=True) as seen:
        model(x)
    (gradient,) = torch.autograd.grad(seen[0].square()[:, 0].sum(), x)
    assert gradient.abs().sum() > 0


def test_the_search_among_operations_draws_nothing() -> None:
    model = Net(lambda m, x: clip(m, x + 0 * torch.rand_like(x)))
    torch.manual_seed(3)
    model(IMAGES)  # the search among layers
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert find_final_map(model, IMAGES).head is not None
    assert torch.equal(torch.rand(1), expected)


def test_a_compiled_body_does_not_hide_the_head() -> None:
    model = Net(clip)
    model.map = torch.compile(model.map, backend="eager")  # type: ignore[assignment]
    assert find_final_map(model, IMAGES).head is not None
    whole = find_final_map(torch.compile(Net(clip), backend="eager"), IMAGES)  # type: ignore[arg-type]
    assert whole.reason is not None
    assert "compiled" in whole.reason


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_head_is_refused() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))
    model = torch.ao.quantization.quantize_dynamic(layers.eval(), {nn.Linear})
    search = find_final_map(model, IMAGES)
    assert search.reason is not None
    assert "quantised" in search.reason


def test_an_exported_program_shows_its_operations() -> None:
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(Net(clip), (IMAGES,), dynamic_shapes=({0: rows},))
    assert find_final_map(program.module(), IMAGES).head is not None


class Stacked(nn.Module):
    """An ensemble under `torch.vmap`, whose operations cannot be seen from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Net(functional) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        values, buffers = torch.func.stack_module_state(list(self.nets))

        def one(v: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(self.nets[0], (v, b), (x,))

        return torch.vmap(one)(values, buffers).mean(dim=0)


def test_operations_under_vmap_are_not_touched() -> None:
    assert find_final_map(Stacked().eval(), IMAGES).head is None


def test_logit_scale_names_what_it_found() -> None:
    target: Target = make_target(Net(clip), "clip", "here")
    with pytest.raises(UsageError, match="the head is matmul in the model"):
        prepare(target, IMAGES, logit_scale=2.0)
