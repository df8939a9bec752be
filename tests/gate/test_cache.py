"""Runs by content: what is a hit, what is not, and who waits for whom."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import digits
from torch import nn

from flatguard.errors import AttackError, BudgetSpent, EnvironmentProblem
from flatguard.evaluation import resolve
from flatguard.gate.cache import RunCache
from flatguard.gate.code import is_project, with_imports
from flatguard.gate.config import Config, config_of
from flatguard.gate.content import content_of, key_of
from flatguard.gate.gate import Judged, pass_through
from flatguard.gate.state import State


def config(files: Path, **changes: Any) -> Config:
    return config_of(
        {
            "model": str(files / "digits.safetensors"), "arch": f"{digits.__file__}:digits_net",
            "dataset": str(files / "digits.npz"), "attack": "torchattacks:PGD", "eps": 0.1,
            "attack_args": {"steps": 5}, "n_examples": 24, "batch_size": 12, **changes,
        }
    )  # fmt: skip


def judged(files: Path, cache: Path, session: str = "first", **changes: Any) -> Judged:
    return pass_through(config(files, **changes), RunCache(cache, session))


def test_the_same_content_is_a_hit_wherever_it_lies(
    digits_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged(digits_files, tmp_path / "cache")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("digits.safetensors", "digits.npz"):
        (moved / name).write_bytes((digits_files / name).read_bytes())
    again = judged(moved, tmp_path / "cache", "second")
    assert (first.cached, again.cached) == (False, True)
    assert again.run.path == first.run.path
    assert again.verdict == first.verdict


def test_whatever_changes_the_result_changes_the_key(digits_files: Path, tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        changed = config(digits_files, **changes)
        arguments = changed.arguments()
        for beside in ("checks", "tolerance"):
            arguments.pop(beside, None)
        return key_of(content_of(resolve(**arguments), changed.checks, changed.surrogates))

    copied = tmp_path / "digits.py"
    copied.write_text(Path(digits.__file__).read_text() + "\n# the same, for all we know\n")
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"eps": 0.2}, {"n_examples": 20}, {"batch_size": 8},
        {"checks": "standard"}, {"attack_args": {"steps": 6}},
        {"logit_scale": 2.0}, {"arch": f"{copied}:digits_net"},
    ]  # fmt: skip
    assert len({key(**change) for change in changes}) == len(changes)
    assert key() == key(gate={"min_robust_accuracy": 0.3})


class Quiet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: float) -> torch.Tensor:
        ctx.how = how
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.how, None


class Behind(nn.Module):
    """What a closure does shows in no file, no weight and no structure."""

    def __init__(self, net: nn.Module, how: float):
        super().__init__()
        self.net = net
        self.change = lambda x: Quiet.apply(x, how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(self.change(x))
        return logits


def test_the_same_weights_with_other_gradients_are_another_content() -> None:
    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()

    def key(how: float) -> str:
        context = resolve(
            Behind(net, how), "torchattacks:FGSM", data=(images[:12], labels[:12]), eps=0.1
        )
        return key_of(content_of(context, "fast", ()))

    assert key(1.0) == key(1.0) != key(0.0)


class Sure(nn.Module):
    """Logits times 200 where the network is less sure than a plain number says."""

    def __init__(self, net: nn.Module, below: Any):
        super().__init__()
        self.net, self.below = net, below

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        return logits


def same(one: Any, other: Any) -> bool:
    return bool(State().of(one) == State().of(other))


def test_what_a_module_holds_is_a_part_of_the_content() -> None:
    net = nn.Linear(2, 2)
    values: list[Any] = [
        0.8, 0.4, None, "a", b"a", (1, [2]), (1, [3]), {"a": 1}, {"a": 2}, torch.ones(2),
        torch.zeros(2), np.ones(2), np.zeros(2), Sure(net, 1), Sure(net, 2),
    ]  # fmt: skip
    for i, value in enumerate(values):
        for j, other in enumerate(values):
            assert same(Sure(net, value), Sure(net, other)) == (i == j), (i, j)
    assert same(Sure(net, {1.0, 2.0}), Sure(net, {2.0, 1.0}))


def test_what_holds_itself_comes_to_an_end() -> None:
    def loop(value: float) -> list[Any]:
        found: list[Any] = [value]
        found.append(found)
        return found

    assert same(loop(1.0), loop(1.0))
    assert not same(loop(1.0), loop(2.0))


FACTORY = """
from torch import nn
from defence.parts import Net

def network():
    return Net()
"""
PARTS = """
from torch import nn
from .consts import FACTOR

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
    def forward(self, x):
        import late
        return super().forward(x) * FACTOR
"""


def test_the_key_knows_what_the_models_code_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "defence").mkdir()
    texts = {
        "fac.py": FACTORY, "defence/__init__.py": "", "defence/parts.py": PARTS,
        "defence/consts.py": "import math, torch\nFACTOR = 1.0", "late.py": "import fac",
        "unrelated.py": "",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = with_imports([tmp_path / "fac.py"])
    expected = {"fac.py", "__init__.py", "parts.py", "consts.py", "late.py"}
    assert {file.name for file in found} == expected
    assert all(is_project(file) for file in found)
    assert not is_project(Path(torch.__file__))


class Turned(nn.Module):
    """Does what a global of this module says: neither weights, nor files, nor attributes do."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        # The first eight images are answered alike: `behaviour` sees nothing.
        late = torch.arange(len(x), device=x.device)[:, None] >= 8
        return torch.where(late, logits * SCALE[0], logits)


SCALE = [1.0]


def test_a_kept_run_is_shown_to_the_model_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()
    asked = config_of(
        {"attack": "torchattacks:PGD", "eps": 0.1, "attack_args": {"steps": 5}, "checks": "none"}
    )

    def turned() -> Judged:
        cache = RunCache(tmp_path, "first")
        return pass_through(asked, cache, model=Turned(net), data=(images[:24], labels[:24]))

    assert (turned().cached, turned().cached) == (False, True)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", [1.5])
    again = turned()
    assert not again.cached
    assert again.why == "it answers otherwise on the clean images of block 0"
    assert turned().cached


def test_a_surrogate_is_its_bytes(digits_files: Path, tmp_path: Path) -> None:
    asked = config(digits_files).arguments()
    context, file = resolve(**asked), tmp_path / "other.safetensors"

    def key(name: str) -> str:
        return key_of(content_of(context, "fast", (name,)))

    file.write_bytes(b"one")
    one, moved = key(str(file)), tmp_path / "moved.safetensors"
    moved.write_bytes(b"one")
    assert key(str(moved)) == one
    file.write_bytes(b"two")
    assert key(str(file)) != one


def test_what_is_damaged_or_was_not_finished_is_attacked_again(
    digits_files: Path, tmp_path: Path
) -> None:
    place = judged(digits_files, tmp_path).run.path.parent
    assert judged(digits_files, tmp_path, "second").cached
    for name in (
        "run/evidence/blocks/00001-*/samples.parquet",
        "run/evidence/probes/twins/attempts.parquet",
        "run/evidence/manifest.json",
        "entry.json",
    ):
        (file,) = place.glob(name)
        file.write_bytes(file.read_bytes()[:-20])
        again = judged(digits_files, tmp_path, "third")
        assert not again.cached, name
        again.run.verify()
    (place / "entry.json").unlink()  # the attacker died after its last block
    assert not judged(digits_files, tmp_path, "fourth").cached


def test_what_ended_early_is_shared_in_its_session_and_tried_again_in_the_next(
    digits_files: Path, tmp_path: Path
) -> None:
    # 24 samples of 5 steps: the budget ends in the second block.
    first = judged(digits_files, tmp_path, max_forwards=100)
    assert first.verdict.verdict == "inconclusive"
    assert judged(digits_files, tmp_path, max_forwards=100).cached
    assert not judged(digits_files, tmp_path, "second", max_forwards=100).cached
    with pytest.raises(BudgetSpent, match="before the first 12 samples"):
        judged(digits_files, tmp_path / "other", max_forwards=20)
    with pytest.raises(BudgetSpent, match="budget of 20 forwards"):  # nobody attacks twice
        judged(digits_files, tmp_path / "other", max_forwards=19)
    assert not judged(digits_files, tmp_path / "other", "second").cached


def test_who_may_spend_more_attacks_again(digits_files: Path, tmp_path: Path) -> None:
    for small in (100, 20):
        cache = tmp_path / str(small)
        try:
            judged(digits_files, cache, max_forwards=small)
        except BudgetSpent:
            assert small == 20
        assert not judged(digits_files, cache).cached
        # What is whole is good for all, whatever they may spend.
        assert judged(digits_files, cache, max_forwards=small).cached
    judged(digits_files, tmp_path / "more", max_forwards=100)
    assert not judged(digits_files, tmp_path / "more", max_forwards=10**9).cached


def test_an_error_is_shared_too(digits_files: Path, tmp_path: Path) -> None:
    def raises(folder: Path) -> Any:
        raise AttackError("it failed")

    with pytest.raises(AttackError, match="it failed"):
        RunCache(tmp_path, "one").fetch("key", {}, raises)

    def never(folder: Path) -> Any:
        raise AssertionError("it was tried already")

    with pytest.raises(Exception, match="it failed"):
        RunCache(tmp_path, "one").fetch("key", {}, never)


HOLDS = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_nobody_hangs_if_the_attacker_dies(digits_files: Path, tmp_path: Path) -> None:
    place = judged(digits_files, tmp_path).run.path.parent
    (place / "entry.json").unlink()
    attacker = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place) + ".lock"], stdout=subprocess.PIPE
    )
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == b"held\n"
    found: list[Judged] = []
    waiting = threading.Thread(target=lambda: found.append(judged(digits_files, tmp_path)))
    waiting.start()
    time.sleep(1.0)
    assert not found, "the other one is attacking"
    attacker.kill()
    attacker.wait()
    waiting.join(60)
    assert [one.cached for one in found] == [False]


def test_a_folder_that_cannot_be_written(digits_files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="--flatguard-cache"):
        judged(digits_files, tmp_path / "file" / "cache")
