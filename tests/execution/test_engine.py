"""Runs whose attack searches a faster twin: the result is that of the model itself."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import tiny
from support.evidence_files import evidence_files
from torch import Tensor, nn

import flatguard
from flatguard.errors import UsageError
from flatguard.execution.executors import Processes
from flatguard.runs.run import Run

PGD: dict[str, Any] = {
    "attack": "torchattacks:PGD", "attack_args": {"steps": 4}, "norm": "Linf", "eps": "0.05",
}  # fmt: skip


COMPILER = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a compiler, and here is no g++"
)


class Net(nn.Module):
    """A convolution with batch norm, and a head; its weights are drawn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)
        for _ in range(20):
            self(_images(32))
        self.eval()
        with torch.no_grad():  # so that all classes occur
            self.fc.weight *= 20
            self.fc.bias -= self(_images(64)).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    """Images that the network classifies as labelled, of several classes."""
    torch.manual_seed(7)
    images = _images(12)
    return images, Net()(images).argmax(1)


@pytest.fixture(scope="module")
def plain(data: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose attack searches the model itself."""
    return _run(data, tmp_path_factory.mktemp("plain") / "run", checks="fast")


def _images(count: int) -> Tensor:
    """Of one colour each, with a texture."""
    return (torch.rand(count, 3, 1, 1) + 0.2 * torch.rand(count, 3, 8, 8)).clamp(0, 1)


def _run(data: tuple[Tensor, Tensor], out: Path, **options: Any) -> Run:
    given: dict[str, Any] = {**PGD, "batch_size": 8, "checks": "none", **options}
    return flatguard.evaluate(Net(), data=data, out=out, **given)


@pytest.mark.parametrize(
    "engine",
    [
        "fold-batchnorm,channels-last",
        "bfloat16",
        "float16",
        pytest.param("compile", marks=COMPILER),
    ],
)
def test_the_verdict_is_that_of_the_model_itself(
    engine: str, plain: Run, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    run = _run(data, tmp_path / "run", checks="fast", engine=[engine])
    for name in ("robust_accuracy", "verdict", "corrected_robust_accuracy", "clean_accuracy"):
        assert run.summary[name] == plain.summary[name]
    assert run.samples["robust"].equals(plain.samples["robust"])
    # The twin's own computation reached the trajectory, with its κ.
    assert not run.trajectory["loss"].equals(plain.trajectory["loss"])
    assert run.trajectory["log_kappa"].notna().all()
    assert run.samples["clean_loss"].equals(plain.samples["clean_loss"])
    assert run.summary["engine"]["options"] == list(run.request.engine)
    assert run.manifest.identity != plain.manifest.identity


def test_a_run_without_an_engine_names_none(plain: Run) -> None:
    assert plain.summary["engine"] is None
    assert "search_prediction" not in plain.samples
    assert 0 < plain.summary["robust_accuracy"] < 1


class Rounded(nn.Module):
    """Decides between two classes by less than bfloat16 can tell apart; the third is far away."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 3)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-0.01], [0.01], [0.0]]))
            self.fc.bias.copy_(torch.tensor([10.0, 10.0, -10.0]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.mean((1, 2, 3), keepdim=False)[:, None] - 0.5)
        return out


def test_what_fools_only_the_twin_is_no_success_and_no_sign_of_masking(tmp_path: Path) -> None:
    brightness = torch.tensor([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    images = brightness.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    labels = (brightness > 0.5).long()
    run = flatguard.evaluate(
        Rounded().eval(), data=(images, labels), out=tmp_path / "run", engine="bfloat16",
        checks="fast", **{**PGD, "eps": "0.01"},
    )  # fmt: skip
    engine = run.summary["engine"]
    assert run.summary["robust_accuracy"] == 1.0
    # Equal logits are class 0: the twin is wrong on every image of class 1.
    assert (engine["search_robust_accuracy"], engine["only_in_search"]) == (0.5, 3)
    found = {finding["check"]: finding for finding in run.summary["findings"]}
    assert found["recorded-mistakes"]["status"] == "pass"
    assert run.summary["verdict"] not in ("masked", "overestimated")


def test_workers_search_the_same_twin(tiny_data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, given = tiny().eval(), {"engine": "bfloat16", "batch_size": 6, "checks": "none"}
    here = flatguard.evaluate(model, data=tiny_data, out=tmp_path / "here", **given, **PGD)
    there = flatguard.evaluate(
        model, data=tiny_data, out=tmp_path / "there", executor=Processes(2), **given, **PGD
    )
    assert evidence_files(here.path) == evidence_files(there.path)


def test_an_option_that_does_not_work_leaves_no_folder(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 4, 4)
    with pytest.raises(UsageError, match="--engine fold-batchnorm does not work for Rounded"):
        flatguard.evaluate(
            Rounded().eval(), data=(images, torch.zeros(4).long()), out=tmp_path / "run",
            engine="fold-batchnorm", **PGD,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("attack", ["apgd-ce", "square", "foolbox:LinfPGD"])
def test_libraries_take_a_channels_last_twin(
    attack: str, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    arguments = {"apgd-ce": {"n_iter": 3}, "square": {"n_queries": 5}}.get(attack, {"steps": 3})
    run = _run(
        data, tmp_path / "run", attack=attack, attack_args=arguments,
        engine=["channels-last", "float16"],
    )  # fmt: skip
    assert run.summary["clean_accuracy"] == 1.0
    assert run.summary["rows_unassigned"] == 0
