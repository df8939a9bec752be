"""Kept runs: what is a hit, what is not, and which process waits for which."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support import digits
from torch import nn

from flatguard.errors import AttackError, BudgetSpent, EnvironmentProblem, FlatguardError
from flatguard.evaluation import resolve
from flatguard.gate.cache import RunCache
from flatguard.gate.config import Config, config_of
from flatguard.gate.gate import Judged, pass_through


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


class Turned(nn.Module):
    """Depends on a global variable, which neither weights nor files show."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        # Only on images that the attack has changed: the identity does not show it.
        changed = (x * 16 != (x * 16).round()).flatten(1).any(1)[:, None]
        return torch.where(changed, logits * SCALE[0], logits)


SCALE = [1.0]


def test_a_kept_run_is_not_used_if_the_model_answers_differently_on_its_images(
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
    assert again.why == "its outputs or gradients on the images of the kept run differ"
    assert turned().cached


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
    (entry,) = (tmp_path / "other").glob("*/entry.json")
    made = entry.stat().st_mtime_ns
    with pytest.raises(BudgetSpent, match="budget of 20 forwards"):
        judged(digits_files, tmp_path / "other", max_forwards=20)
    assert entry.stat().st_mtime_ns == made, "it was attacked twice"
    assert not judged(digits_files, tmp_path / "other", "second").cached


def test_other_limits_are_attacked_again_unless_the_run_is_complete(
    digits_files: Path, tmp_path: Path
) -> None:
    for small in (100, 20):
        cache = tmp_path / str(small)
        try:
            judged(digits_files, cache, max_forwards=small)
        except BudgetSpent:
            assert small == 20
        assert not judged(digits_files, cache).cached
        assert judged(digits_files, cache, max_forwards=small).cached


def test_an_error_is_shared_in_its_session(tmp_path: Path) -> None:
    images, labels = digits.digits()
    torch.manual_seed(0)
    context = resolve(
        digits.digits_net().eval(), "torchattacks:FGSM", data=(images[:12], labels[:12]), eps=0.1
    )

    def raises(folder: Path) -> Any:
        raise AttackError("it failed")

    def never(folder: Path) -> Any:
        raise AssertionError("it was tried already")

    with pytest.raises(AttackError, match="it failed"):
        RunCache(tmp_path, "one").fetch(context, raises)
    with pytest.raises(FlatguardError, match="it failed"):
        RunCache(tmp_path, "one").fetch(context, never)
    with pytest.raises(AssertionError, match="tried"):
        RunCache(tmp_path, "two").fetch(context, never)


HOLDS = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_no_process_waits_for_a_dead_one(digits_files: Path, tmp_path: Path) -> None:
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
