"""The search's twin: proven for each option, refused by name, and the target left as it was."""

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from torch import Tensor, nn

from flatguard.errors import UsageError
from flatguard.targets import Target, make_target, prepare
from flatguard.targets.engine import faster_twin
from flatguard.targets.head import Head
from flatguard.targets.reduced import Reduced

EAGER = ["fold-batchnorm", "channels-last", "bfloat16", "float16"]


class Small(nn.Module):
    """A convolution with batch norm, and a head."""

    def __init__(self, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))
        return out


def _prepared(model: nn.Module, images: Tensor) -> Target:
    return prepare(make_target(model.eval(), "small", "a test"), images)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    labels = torch.arange(len(images)) % 4
    loss = nn.functional.cross_entropy(model(x), labels, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("engine", [[name] for name in EAGER] + [EAGER[:3]])
def test_a_twin_has_the_logits_gradients_and_head_of_its_target(
    engine: list[str], images: Tensor
) -> None:
    target = _prepared(Small(), images)
    before = copy.deepcopy(target.model.state_dict())
    expected, gradient = target.model(images), _gradient(target.model, images)
    twin = faster_twin(target, engine, images)
    logits, ours = twin.model(images), _gradient(twin.model, images)
    reduced = "float16" in engine[-1]
    assert logits.dtype == ours.dtype == torch.float32
    assert (logits - expected).abs().max() < (0.05 if reduced else 1e-5)
    assert not torch.equal(logits, expected) or engine == ["channels-last"]
    assert torch.cosine_similarity(ours.flatten(), gradient.flatten(), 0) > 0.99
    assert ours.is_contiguous()  # AutoAttack views it
    assert isinstance(twin.head, Head)
    assert twin.head.name.endswith("fc")
    assert twin.model is not target.model
    assert torch.equal(target.model(images), expected)
    assert all(torch.equal(before[k], v) for k, v in target.model.state_dict().items())
    assert all(p.requires_grad for p in target.model.parameters())
    assert isinstance(target.model.get_submodule("norm"), nn.BatchNorm2d)


def test_a_confident_sample_keeps_its_gradient_in_float16(images: Tensor) -> None:
    """Its gradient is below float16's smallest number where it is not scaled."""
    model = Small()
    with torch.no_grad():
        model.fc.bias += torch.tensor([60.0, 0.0, 0.0, 0.0])
    target = _prepared(model, images)

    def lowest(model: nn.Module) -> Tensor:
        x = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(x), torch.zeros(6, dtype=torch.long))
        return torch.autograd.grad(loss, x)[0]

    with torch.autocast("cpu", torch.float16):
        unscaled = lowest(target.model)
    twin = faster_twin(target, ["float16"], images)
    expected, ours = lowest(target.model), lowest(twin.model)
    assert not unscaled.any()
    assert expected.any()
    assert (ours - expected).double().norm() < 0.05 * expected.double().norm()


def test_gradients_are_scaled_sample_by_sample_and_for_each_backward_pass(images: Tensor) -> None:
    """As attacks need that differentiate one pass several times."""
    plain = Small().eval()
    model, x = Reduced(copy.deepcopy(plain), torch.float16), images.clone().requires_grad_()
    logits = model(x)
    for column in range(4):
        # Sizes that float16 has not: 1e-12 for the first sample, 1e12 for the last.
        weights = torch.logspace(-12, 12, 6)
        found = torch.autograd.grad((logits[:, column] * weights).sum(), x, retain_graph=True)[0]
        y = images.clone().requires_grad_()
        expected = torch.autograd.grad((plain(y)[:, column] * weights).sum(), y)[0]
        for ours, theirs in zip(
            found.double().flatten(1), expected.double().flatten(1), strict=True
        ):
            assert (ours - theirs).norm() < 0.02 * theirs.norm()


class Views(Small):
    """`.view` needs the layout that it was written for."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.norm(self.conv(x)).relu().view(len(x), -1)[:, :8])
        return out


class Chaotic(Small):
    """Rounding decides its logits."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc((1e4 * self.conv(x)).sin().mean((2, 3)))
        return out


class Asks(Small):
    """Refuses to go without what folding replaces."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.norm.eps


class Held(Small):
    """Its tensors cannot be copied."""

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("no copies")


@pytest.mark.parametrize(
    ("model", "option", "reason"),
    [
        (Views(), "channels-last", "RuntimeError: view size"),
        (tiny(), "fold-batchnorm", "no layer hands its output to a batch norm"),
        (Asks(), "fold-batchnorm", "no attribute 'eps'"),
        (Small().to(torch.bfloat16), "float16", "its weights are in bfloat16, not in float32"),
        (Small().double(), "bfloat16", "its weights are in float64, not in float32"),
        (Held(), "channels-last", "no copies"),
        (Chaotic(), "float16", "logits differ from the model's"),
    ],
)  # fmt: skip
def test_an_option_that_does_not_work_is_refused_by_its_name(
    model: nn.Module, option: str, reason: str
) -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    target = _prepared(model, images)
    with pytest.raises(UsageError, match=f"--engine {option} does not work for small: .*{reason}"):
        faster_twin(target, [option], images)


class Purified(Small):
    """Moves its input along a gradient before it decides, as purifiers and anti-adversaries do."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = x.detach().requires_grad_()
            (step,) = torch.autograd.grad(super().forward(moved).amax(1).sum(), moved)
        return super().forward(x + 0.01 * step.sign().detach())


@pytest.mark.parametrize("engine", [["bfloat16"], ["channels-last"]])
def test_a_model_that_differentiates_itself_has_a_twin(engine: list[str], images: Tensor) -> None:
    target = _prepared(Purified(), images)
    expected = target.model(images)
    twin = faster_twin(target, engine, images)
    with torch.no_grad():
        assert (twin.model(images) - expected).abs().max() < 0.1


def test_a_target_without_a_head_has_a_twin_without_one(images: Tensor) -> None:
    class Masked(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(1)

    target = _prepared(Masked(), images)
    assert target.head is None
    twin = faster_twin(target, ["channels-last"], images)
    assert (twin.head, twin.head_reason) == (None, target.head_reason)


COMPILING = """
import sys, torch
from torch import nn
from flatguard.errors import UsageError
from flatguard.recording.recorder import Recorder
from flatguard.targets import make_target, prepare
from flatguard.targets.engine import faster_twin
from flatguard.targets.head import HeadSearch
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
x = torch.rand(4, 3, 2, 2)
target = prepare(make_target(model, "small", "a test"), x)
try:
    twin = faster_twin(target, ["compile"], x)
except UsageError as error:
    sys.exit(str(error))
for _ in range(2):  # a recorder of the second block is another one
    with Recorder(twin.model, x, torch.zeros(4).long(), head=HeadSearch(twin.head, None)) as seen:
        twin.model(x)
    assert seen.trajectory()["log_kappa"].notna().all()
assert (twin.model(x) - model(x)).abs().max() < 1e-5
print(twin.head.name, hasattr(twin.model.body.forward, "_torchdynamo_orig_callable"))
"""


def _compiling(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    package = importlib.util.find_spec("flatguard")
    assert package is not None
    assert package.origin is not None
    return subprocess.run(
        [sys.executable, "-c", COMPILING], capture_output=True, text=True, timeout=600, check=False,
        env={
            **os.environ, "PYTHONPATH": str(Path(package.origin).parents[1]),
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), **environment,
        },
    )  # fmt: skip


def test_a_compiled_twin_is_recorded_with_its_head(tmp_path: Path) -> None:
    result = _compiling(tmp_path)
    if "does not run on this machine" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert (result.returncode, result.stdout.split()) == (0, ["layer", "True"]), result.stderr


def test_without_a_compiler_the_message_says_what_is_needed(tmp_path: Path) -> None:
    result = _compiling(tmp_path, CXX=str(tmp_path / "no-such-compiler"), PATH=str(tmp_path))
    assert result.returncode == 1
    assert "--engine compile does not work for small: torch.compile does not run" in result.stderr
    assert "it needs a C++ compiler such as g++" in result.stderr
    assert result.stderr.strip().count("\n") == 0
