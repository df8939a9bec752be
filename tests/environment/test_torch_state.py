"""Evidence does not depend on what the caller switched in torch, and the caller finds it again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.evidence_files import evidence_files
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import flatguard
from flatguard.environment.torch_state import OWN, TorchState, kept_state, own_state, unobserved
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Processes, Work
from flatguard.execution.executors.executor import AttackBlock, Crew
from flatguard.execution.executors.worker import WorkerInput, carry_out
from flatguard.execution.progress import Silent
from flatguard.execution.reopening import reopen
from flatguard.request import NO_LIMITS
from flatguard.runs.check_evidence import load_probes
from flatguard.studies.reproduce import reproduce

ASK: dict[str, Any] = {
    "attack": "square", "norm": "Linf", "eps": 0.08, "attack_args": {"n_queries": 2},
    "batch_size": 12, "threads": 1,
}  # fmt: skip


class Watching(TorchFunctionMode):
    """Notes each operation, and changes what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(func.__name__)
        found = func(*args, **(kwargs or {}))
        return found * 2.0 if func is Tensor.exp else found


def test_a_callers_mode_does_not_see_what_is_computed_unobserved() -> None:
    with Watching() as mode:
        with unobserved():
            inside = torch.zeros(2).exp()
        assert mode.seen == []
        outside = torch.zeros(2).exp()
    assert (inside.tolist(), outside.tolist()) == ([1.0, 1.0], [2.0, 2.0])


def quarters() -> nn.Module:
    """Says which quarter of an 8×8 image is the brightest."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.fixture(scope="session")
def data() -> tuple[Tensor, Tensor]:
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, nn.functional.avg_pool2d(images, 4).flatten(1).argmax(1)


@pytest.fixture(scope="session")
def model(data: tuple[Tensor, Tensor]) -> nn.Module:
    torch.manual_seed(0)
    net, (images, labels) = quarters(), data
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval()


@pytest.fixture(scope="session")
def honest(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> flatguard.Run:
    """The run in torch's own state; two queries find nothing, and the checks find everything."""
    run = flatguard.evaluate(model, **ASK, data=data, out=tmp_path_factory.mktemp("honest") / "run")
    assert run.summary["verdict"] == "overestimated"
    return run


def adversarial(run: flatguard.Run) -> Tensor:
    return torch.cat([run.adversarial(block.plan.index) for block in run.blocks])


@contextlib.contextmanager
def switched(switch: Callable[[Any], None], value: Any, back: Any) -> Iterator[None]:
    switch(value)
    try:
        yield
    finally:
        switch(back)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "gradients off": lambda: switched(torch.set_grad_enabled, False, True),
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: switched(torch.set_default_device, "meta", None),
    "device context": lambda: torch.device("meta"),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "precision": lambda: medium_precision(),
    "anomalies": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "seeded": lambda: seeded_generators(7),
    "seeded otherwise": lambda: seeded_generators(8),
    "NumPy's errors": lambda: np.errstate(all="raise"),
}


@contextlib.contextmanager
def medium_precision() -> Iterator[None]:
    before = TorchState.now()  # torch sets several values at once, and not all of them back
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        before.apply()


@contextlib.contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Each global generator at a place of its own, which must be found again."""
    kept = generators()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])


def generators() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def same_generators(one: tuple[Any, ...], two: tuple[Any, ...]) -> bool:
    return (
        torch.equal(one[0], two[0])
        and one[1] == two[1]
        and all(np.array_equal(a, b) for a, b in zip(one[2], two[2], strict=True))
    )


@pytest.mark.parametrize("state", list(STATES))
def test_evaluate_gives_the_same_evidence(
    state: str, model: nn.Module, data: tuple[Tensor, Tensor], honest: flatguard.Run, tmp_path: Path
) -> None:
    with STATES[state]():
        before = (TorchState.now(), torch.is_inference_mode_enabled())
        places = generators()
        run = flatguard.evaluate(model, **ASK, data=data, out=tmp_path / "run")
        assert (TorchState.now(), torch.is_inference_mode_enabled()) == before
        assert same_generators(generators(), places)
    assert evidence_files(run.path) == evidence_files(honest.path)
    assert run.summary["verdict"] == "overestimated"


@pytest.mark.parametrize("state", ["no_grad", "inference_mode"])
def test_resume_and_audit_give_the_same_evidence(
    state: str, model: nn.Module, data: tuple[Tensor, Tensor], honest: flatguard.Run, tmp_path: Path
) -> None:
    bare = flatguard.evaluate(model, **ASK, data=data, out=tmp_path / "bare", checks="none")
    shutil.copytree(honest.path, tmp_path / "part")
    for missing in ("evidence/blocks/00001-*", "evidence/probes/twins"):
        for folder in (tmp_path / "part").glob(missing):
            shutil.rmtree(folder)
    with STATES[state]():
        before = (TorchState.now(), torch.is_inference_mode_enabled())
        resumed = flatguard.resume(tmp_path / "part", model=model, data=data)
        verdict = flatguard.audit(bare, checks="fast", model=model, data=data)
        assert (TorchState.now(), torch.is_inference_mode_enabled()) == before
    assert evidence_files(resumed.path) == evidence_files(honest.path)
    assert verdict.verdict == resumed.summary["verdict"] == "overestimated"
    found = load_probes(flatguard.load_run(bare.storage))
    assert {name: facts.facts for name, facts in found.items()} == {
        name: facts.facts for name, facts in load_probes(honest).items()
    }


def test_made_in_inference_mode(
    model: nn.Module, data: tuple[Tensor, Tensor], honest: flatguard.Run, tmp_path: Path
) -> None:
    """A model and images that autograd does not take as they are."""
    with torch.inference_mode():
        net, (images, labels) = quarters().eval(), (data[0].clone(), data[1].clone())
        net.load_state_dict(model.state_dict())
    weights = [*net.parameters()]
    assert all(weight.is_inference() for weight in weights)
    run = flatguard.evaluate(net, **ASK, data=(images, labels), out=tmp_path / "run")
    assert evidence_files(run.path) == evidence_files(honest.path)
    assert all(a is b for a, b in zip(weights, net.parameters(), strict=True))


class Switches(nn.Module):
    """Leaves gradients off, in an otherwise plain forward pass."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        torch.set_grad_enabled(False)
        return logits


def test_a_forward_that_leaves_gradients_off(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Of an attack with gradients and of the checks' twins."""
    ask = {**ASK, "attack": "torchattacks:PGD", "attack_args": {"steps": 1, "alpha": 0.001}}
    plain = flatguard.evaluate(model, **ask, data=data, out=tmp_path / "plain")
    run = flatguard.evaluate(Switches(model).eval(), **ask, data=data, out=tmp_path / "run")
    assert torch.is_grad_enabled()
    assert run.summary["verdict"] == plain.summary["verdict"] == "overestimated"
    assert run.samples.equals(plain.samples)
    assert torch.equal(adversarial(run), adversarial(plain))


class ForGood(nn.Module):
    """Enters inference mode and never leaves it."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.modes: list[Any] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        self.modes.append(torch.inference_mode())
        self.modes[-1].__enter__()
        return logits


def test_a_forward_that_stays_in_inference_mode_is_refused(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    net = ForGood(model).eval()
    with pytest.raises(flatguard.FlatguardError, match="ForGood enters or leaves"):
        flatguard.evaluate(net, **ASK, data=data, out=tmp_path / "run")
    assert not torch.is_inference_mode_enabled()
    with kept_state():  # the end of what is still open sets the state once more
        net.modes.clear()


class Pixels:
    """An array that switches gradients off where it is read."""

    def __init__(self, images: Tensor):
        self._images, self.shape, self.ndim = images, images.shape, images.ndim

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, part: slice) -> Tensor:
        torch.set_grad_enabled(False)
        return self._images[part]


def test_data_that_switch_gradients_off(
    model: nn.Module, data: tuple[Tensor, Tensor], honest: flatguard.Run, tmp_path: Path
) -> None:
    pixels: Any = Pixels(data[0])
    run = flatguard.evaluate(model, **ASK, data=(pixels, data[1]), out=tmp_path / "run")
    assert torch.is_grad_enabled()
    assert evidence_files(run.path) == evidence_files(honest.path)


ARCH = """
import torch
from torch import nn
{imported}
def make():
    {called}
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
"""
OFF = "torch.set_grad_enabled(False)"
STAYS = "mode = torch.inference_mode(); mode.__enter__()"


@pytest.mark.parametrize(
    ("imported", "called", "workers"),
    [(OFF, "pass", []), ("", OFF, []), (STAYS, "pass", []), (OFF, OFF, ["--workers", "2"])],
)
def test_an_architecture_that_switches_gradients_off(
    imported: str, called: str, workers: list[str], model: nn.Module, data: tuple[Tensor, Tensor],
    honest: flatguard.Run, tmp_path: Path,
) -> None:  # fmt: skip
    """On the command line, in one process and in several."""
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.save(data, tmp_path / "data.pt")
    (tmp_path / "arch.py").write_text(ARCH.format(imported=imported, called=called))
    done = subprocess.run(
        [
            sys.executable, "-m", "flatguard", "evaluate", "--model", "w.safetensors",
            "--arch", "arch.py:make", "--dataset", "data.pt", "--attack", "square",
            "--norm", "Linf", "--eps", "0.08", "--attack-arg", "n_queries=2", "--batch-size", "12",
            "--out", "run", "--json", "--quiet", *workers,
        ],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr + done.stdout
    assert json.loads(done.stdout)["verdict"] == "overestimated"
    assert torch.equal(adversarial(flatguard.load_run(tmp_path / "run")), adversarial(honest))


IMPORTED = {
    "no_grad": "mode = torch.no_grad(); mode.__enter__()",
    "gradients off": OFF,
    "inference_mode": STAYS,
    "autocast": "mode = torch.autocast('cpu', dtype=torch.bfloat16); mode.__enter__()",
    "float64": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "device context": "mode = torch.device('meta'); mode.__enter__()",
    "deterministic": "torch.use_deterministic_algorithms(True)",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "TF32": "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True",
    "anomalies": "torch.autograd.set_detect_anomaly(True)",
    "seeded": "import random, numpy as np; torch.manual_seed(7); random.seed(7); np.random.seed(7)",
    "unseeded": "import random, numpy as np; torch.seed(); random.seed(); np.random.seed()",
    "NumPy's errors": "import numpy as np; np.seterr(all='raise')",
    "threads": "torch.set_num_threads(2)",
}


@pytest.fixture(scope="session")
def from_file(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with weights, data, an architecture and the run of a clean process."""
    folder = tmp_path_factory.mktemp("from_file")
    save_file(model.state_dict(), folder / "w.safetensors")
    torch.save(data, folder / "data.pt")
    (folder / "arch.py").write_text(ARCH.format(imported="", called="pass"))
    with contextlib.chdir(folder):
        run = flatguard.evaluate("w.safetensors", **FROM_FILE, out="run")
    assert run.summary["verdict"] == "overestimated"
    return folder


FROM_FILE = {**ASK, "arch": "arch.py:make", "data": "data.pt"}


@pytest.mark.parametrize(
    ("state", "place"),
    [
        *((state, "import") for state in IMPORTED),
        *((state, "factory") for state in ("autocast", "unseeded", "threads")),
    ],
)
def test_an_architecture_that_sets_a_state(
    state: str, place: str, from_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command line loads it, and as a worker does: the same evidence.

    A factory that sets the default type or device makes another model, so it is not tried.
    """
    monkeypatch.chdir(from_file)
    source, before = Path("arch.py").read_text(), (TorchState.now(), torch.get_num_threads())
    where = {"imported": "", "called": "pass"}
    where["imported" if place == "import" else "called"] = IMPORTED[state]
    Path("arch.py").write_text(ARCH.format(**where))
    try:
        run = flatguard.evaluate("w.safetensors", **FROM_FILE, out=tmp_path / "run")
        shutil.rmtree(next((tmp_path / "run").glob("evidence/blocks/00001-*")))
        context, opened = reopen(run), flatguard.load_run(run.path)
        work = Work(context, opened, (), 0, lambda *_: None, Silent(), ComputeBudget(NO_LIMITS))
        carry_out(WorkerInput.of(Crew.of(work)), AttackBlock(run.manifest.blocks[1], 0))
    finally:
        Path("arch.py").write_text(source)
    assert (TorchState.now(), torch.get_num_threads()) == before
    assert evidence_files(run.path) == evidence_files(from_file / "run")


def test_workers_below_no_grad(
    model: nn.Module, data: tuple[Tensor, Tensor], honest: flatguard.Run, tmp_path: Path
) -> None:
    with torch.no_grad():
        run = flatguard.evaluate(
            model, **ASK, data=data, out=tmp_path / "run", executor=Processes(2)
        )
    assert evidence_files(run.path) == evidence_files(honest.path)


def test_a_study_below_no_grad(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    asked: dict[str, Any] = {"data": data, "n_examples": 8, "threads": 1}
    plain = reproduce("walter-fig13", [model], **asked)
    net = quarters().train()
    net.load_state_dict(model.state_dict())
    with torch.no_grad():
        found = reproduce("walter-fig13", [net], **asked)
    assert found.claims == plain.claims
    assert net.training


def test_everything_is_put_back() -> None:
    with STATES["default device"](), torch.no_grad(), torch.autocast("cpu"):
        before = TorchState.now()
        with own_state():
            assert TorchState.now() == OWN
            assert torch.ones(1).device.type == "cpu"
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
        assert TorchState.now() == before
        with pytest.raises(KeyboardInterrupt), own_state():
            raise KeyboardInterrupt
        assert TorchState.now() == before
    assert TorchState.now() == OWN
    with kept_state():
        torch.set_default_device("meta")
        torch.set_autocast_enabled("cpu", True)
        torch.inference_mode().__enter__()
    assert TorchState.now() == OWN
    assert not torch.is_inference_mode_enabled()


class Drawn(nn.Module):
    """Draws from every global generator."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        noise = random.random() + np.random.random() + torch.rand(()).item()
        logits: Tensor = self.net(images)
        return logits * (1 + 0.01 * noise)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_model_that_draws_from_the_global_generators(
    seed: int, model: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """The evidence depends on the run's seed alone, and the caller's draws go on as before."""
    ask = ASK | {"checks": "none"}
    first = flatguard.evaluate(Drawn(model).eval(), **ask, data=data, out=tmp_path / "first")
    with seeded_generators(seed):
        places = generators()
        run = flatguard.evaluate(Drawn(model).eval(), **ask, data=data, out=tmp_path / "run")
        assert same_generators(generators(), places)
    assert evidence_files(run.path) == evidence_files(first.path)
