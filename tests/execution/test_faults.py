"""What breaks while a run is made or read: nothing committed is lost or read as something else."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.architectures import Hungry, Large, tiny
from support.defences import OffGrid
from support.evidence_files import evidence_files
from support.listeners import Listener
from torch import nn

import flatguard
from flatguard.errors import (
    AttackError,
    FlatguardError,
    ModelError,
    OutOfMemory,
    RunFolderError,
)
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.execution.progress import Silent
from flatguard.runs.layout import STAGING, committed
from flatguard.runs.run import Run

Images = tuple[torch.Tensor, torch.Tensor]
HERE = Path(__file__).parent
PGD = {"attack": "torchattacks:PGD", "eps": "4/255", "attack_args": {"steps": 3}, "threads": 1}


class Raises(nn.Module):
    """Raises where an image's first pixel is brighter than 0.99; `only` under attack if asked."""

    def __init__(self, only_under_attack: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.only = tiny(), only_under_attack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x[:, 0, 0, 0] > 0.99).any() and (not self.only or x.requires_grad):
            raise RuntimeError("cannot see\nin this light")
        return self.net(x)


@pytest.fixture
def glaring(tiny_data: Images) -> Images:
    """Samples 3 and 7 blind the model, and no other comes near."""
    images = tiny_data[0].clone()
    images[:, 0, 0, 0] = 0.5
    images[[3, 7], 0, 0, 0] = 1.0
    return images, tiny_data[1]


@pytest.mark.parametrize("under_attack", [False, True])
def test_a_sample_that_the_model_raises_on_is_counted_and_the_rest_goes_on(
    under_attack: bool, glaring: Images, tmp_path: Path
) -> None:
    model = Raises(under_attack).eval()
    run = flatguard.evaluate(
        model, "torchattacks:PGD", data=glaring, eps="1/255", batch_size=6, max_failures=2,
        out=tmp_path / "run", attack_args={"steps": 2, "random_start": False},
    )  # fmt: skip
    assert run.complete
    assert [f.sample for block in run.blocks for f in block.failures] == [3, 7]
    samples = run.samples
    assert samples.loc[samples["failed"], "sample"].tolist() == [3, 7]
    lost = samples[samples["failed"]]
    assert not lost[["clean_correct", "robust", "admissible"]].any(axis=None)
    assert lost[["clean_loss", "adv_loss", "clean_prediction", "distance"]].isna().all(axis=None)
    assert samples.loc[~samples["failed"], "clean_loss"].notna().all()
    assert sorted(run.trajectory["sample"].dropna().unique()) == [
        i for i in range(12) if i not in (3, 7)
    ]
    assert run.summary["n_examples"] == 12
    assert run.summary["failed"] == 2
    assert run.summary["outside_budget"] == 0
    assert any("sample 3 was not measured and counts as not robust" in w
               for w in run.summary["warnings"])  # fmt: skip
    assert (run.path / "report.html").is_file()
    assert flatguard.audit(run).robust_accuracy == samples["robust"].mean()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_block_of_one_sample_may_fail_too(
    batch_size: int, glaring: Images, tmp_path: Path
) -> None:
    """At seven a block, samples 7 to 7 are the second of them."""
    model, data = Raises().eval(), (glaring[0][:8], glaring[1][:8])
    run = flatguard.evaluate(
        model, **PGD, data=data, batch_size=batch_size, max_failures=2, out=tmp_path / "run"
    )
    samples = run.samples
    assert samples.loc[samples["failed"], "sample"].tolist() == [3, 7]
    assert samples["robust"].dtype == bool
    assert torch.equal(run.adversarial(len(run.blocks) - 1)[-1], glaring[0][7])
    assert run.summary["failed"] == 2
    with pytest.raises(FlatguardError, match="cannot see"):
        flatguard.evaluate(
            model, **PGD, data=data, batch_size=batch_size, max_failures=1, out=tmp_path / "one"
        )


def test_what_is_left_is_attacked_as_if_the_others_were_not_there(
    glaring: Images, tmp_path: Path
) -> None:
    model = Raises().eval()
    run = flatguard.evaluate(
        model, **PGD, data=glaring, batch_size=12, max_failures=2, checks="none",
        out=tmp_path / "run",
    )  # fmt: skip
    keep = [i for i in range(12) if i not in (3, 7)]
    alone = flatguard.evaluate(
        model, **PGD, data=(glaring[0][keep], glaring[1][keep]), batch_size=12, checks="none",
        out=tmp_path / "alone",
    )  # fmt: skip
    assert torch.equal(run.adversarial(0)[keep], alone.adversarial(0))
    assert torch.equal(run.adversarial(0)[3], glaring[0][3])


def test_more_failures_than_allowed_end_the_run_and_it_goes_on_when_more_are_allowed(
    glaring: Images, tmp_path: Path
) -> None:
    model, asked = Raises().eval(), {**PGD, "data": glaring, "batch_size": 6, "checks": "none"}
    with pytest.raises(FlatguardError, match="cannot see"):
        flatguard.evaluate(model, **asked, out=tmp_path / "none")  # 12 samples: none by default
    with pytest.raises(
        ModelError, match="failed on 2 samples, and --max-failures allows 1; the first is sample 3"
    ):
        flatguard.evaluate(model, **asked, max_failures=1, out=tmp_path / "one")
    again = flatguard.resume(tmp_path / "one", model=model, data=glaring, max_failures=2)
    assert again.complete
    whole = flatguard.evaluate(model, **asked, max_failures=1 + 1, out=tmp_path / "two")
    ours, theirs = evidence_files(again.path), evidence_files(whole.path)
    assert {n: f for n, f in ours.items() if "blocks" in n} == {
        n: f for n, f in theirs.items() if "blocks" in n
    }


def test_a_failure_that_no_sample_causes_is_raised(tiny_data: Images, tmp_path: Path) -> None:
    class Weary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = tiny(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += x.requires_grad
            if self.calls == 2:
                raise RuntimeError("tired")
            return self.net(x)

    with pytest.raises(AttackError, match="tired"):
        flatguard.evaluate(
            Weary().eval(), **PGD, data=tiny_data, max_failures=5, out=tmp_path / "run"
        )
    (failure,) = flatguard.load_run(tmp_path / "run").failures
    assert "tired" in failure.error


@pytest.fixture
def run(tiny_data: Images, tmp_path: Path) -> Run:
    torch.manual_seed(0)
    return flatguard.evaluate(
        tiny().eval(), **PGD, data=tiny_data, batch_size=6, out=tmp_path / "run"
    )


def test_no_flipped_bit_of_the_evidence_is_read_as_something_else(run: Run, tmp_path: Path) -> None:
    """A random bit of every file: it is found, or what is read is the same."""
    rng = random.Random(0)
    before = flatguard.audit(run).model_dump()
    found = 0
    for file in sorted((run.path / "evidence").rglob("*")):
        if not file.is_file():
            continue
        content = file.read_bytes()
        for _ in range(3):
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(flipped)
            try:
                read = flatguard.audit(run.path).model_dump()
            except RunFolderError:
                found += 1
            else:
                assert read == before, file
        file.write_bytes(content)
    assert found > 40
    assert flatguard.audit(run.path).model_dump() == before


def test_a_truncated_table_is_found_before_anything_is_attacked(run: Run) -> None:
    file = committed(run.path)[0] / "trajectory.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RunFolderError, match="checksum does not match; remove the folder"):
        flatguard.resume(run.path, allow_code=True)


def test_a_clock_that_jumps_changes_nothing(
    tiny_data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every block it goes to 1970 or to 2100, and all files get dates of then."""
    asked = {**PGD, "data": tiny_data, "batch_size": 3, "max_minutes": 5, "checks": "fast"}
    torch.manual_seed(0)
    model, folder = tiny().eval(), tmp_path / "jumps"
    wanted = flatguard.evaluate(model, **asked, out=tmp_path / "steady")
    moments = itertools.cycle([0.0, 4_102_444_800.0])

    class Jumps(Silent):
        def advanced(self, samples: int) -> None:
            now = next(moments)
            monkeypatch.setattr(time, "time", lambda: now)
            for file in folder.rglob("*"):
                os.utime(file, (now, now))

    flatguard.evaluate(model, **asked, shard="2/2", out=folder, progress=Jumps())
    assert time.time() in (0.0, 4_102_444_800.0)
    again = flatguard.resume(folder, model=model, data=tiny_data, progress=Jumps())
    assert evidence_files(again.path) == evidence_files(wanted.path)
    assert again.summary["verdict"] == wanted.summary["verdict"]


def in_a_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


FULL_DISK = """
import resource, sys, torch, flatguard
from support.architectures import Large, tiny
# As on a full disk, writing a file beyond this size fails; Python ignores SIGXFSZ.
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
torch.manual_seed(0)
images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(7))
try:
    flatguard.resume(sys.argv[1], model=tiny().eval(), data=(images, torch.arange(12) % 4))
except flatguard.FlatguardError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    run: Run, tiny_data: Images, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, full = tiny().eval(), tmp_path / "full"
    flatguard.evaluate(model, **PGD, data=tiny_data, batch_size=6, shard="1/2", out=full)
    done = in_a_child(FULL_DISK, full)
    assert done.returncode == 0, done.stderr
    assert "RunFolderError cannot write block 00001" in done.stdout
    assert list(committed(full)) == [0]
    assert not (full / STAGING).exists()
    again = flatguard.resume(full, model=model, data=tiny_data)
    assert evidence_files(again.path) == evidence_files(run.path)


def test_a_folder_that_may_not_be_written(tiny_data: Images, tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux's /proc, where nobody may write, not even root")
    with pytest.raises(RunFolderError, match="cannot write to /proc"):
        flatguard.evaluate(tiny().eval(), **PGD, data=tiny_data, out="/proc/run")


class Dies(nn.Module):
    """Ends its process at the first gradient, once: a file remembers."""

    def __init__(self, mark: Path):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.mark = tiny(), mark

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad and self.mark.exists():
            self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    code = """
import sys
import time
from pathlib import Path
import torch, flatguard
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.execution.progress import Silent
from test_faults import Dies, PGD
if __name__ == "__main__":
    out = Path(sys.argv[1])
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    asked = {**PGD, "data": (images, torch.arange(12) % 4), "batch_size": 4, "checks": "none"}
    mark = out.parent / "mark"
    flatguard.evaluate(Dies(mark).eval(), **asked, out=out)
    mark.touch()
    again = out.parent / "again"
    print(flatguard.evaluate(Dies(mark).eval(), **asked, out=again, executor=Processes(1)).complete)
"""
    script = tmp_path / "main.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "out"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])},
    )  # fmt: skip
    assert done.stdout.split()[-1] == "True", done.stderr
    assert not (tmp_path / "mark").exists()
    assert evidence_files(tmp_path / "again") == evidence_files(tmp_path / "out")


def test_a_model_that_cannot_be_sent(tiny_data: Images, tmp_path: Path) -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    with pytest.raises(FlatguardError, match="cannot be sent to other processes"):
        flatguard.evaluate(
            Local().eval(), **PGD, data=tiny_data, executor=Processes(2), out=tmp_path / "run"
        )


@pytest.mark.parametrize("executor", [InProcess(), Processes(2)])
def test_out_of_memory_is_another_run_that_says_so(
    executor: Executor, tiny_data: Images, tmp_path: Path
) -> None:
    listener = Listener()

    run = flatguard.evaluate(
        Large().eval(), **PGD, data=tiny_data, batch_size=12, out=tmp_path / "run",
        progress=listener, checks="none", executor=executor,
    )  # fmt: skip
    assert run.request.batch_size == 3
    assert sum("another run, with batches of" in line for line in listener.lines) == 2
    smaller = flatguard.evaluate(
        Large().eval(), **PGD, data=tiny_data, batch_size=3, out=tmp_path / "three", checks="none"
    )
    assert evidence_files(run.path) == evidence_files(smaller.path)


@pytest.mark.parametrize(
    ("when", "of_numpy", "executor"),
    [
        ("clean", False, InProcess()), ("always", False, InProcess()),
        ("always", True, InProcess()), ("gradient", False, InProcess()),
        ("clean", False, Processes(2)),
    ],
)  # fmt: skip
def test_memory_that_runs_out_in_any_pass_halves_the_batch(
    when: str, of_numpy: bool, executor: Executor, tiny_data: Images, tmp_path: Path
) -> None:
    """The allocator's own error, in the first look, the clean pass, the attack or the last pass."""
    listener = Listener()
    run = flatguard.evaluate(
        Hungry(when, of_numpy).eval(), **PGD, data=tiny_data, batch_size=12, out=tmp_path / "run",
        progress=listener, checks="none", executor=executor,
    )  # fmt: skip
    assert run.request.batch_size == 3
    assert sum("another run, with batches of" in line for line in listener.lines) == 2
    smaller = flatguard.evaluate(
        Hungry(when, of_numpy).eval(), **PGD, data=tiny_data, batch_size=3, checks="none",
        out=tmp_path / "three",
    )  # fmt: skip
    assert evidence_files(run.path) == evidence_files(smaller.path)


def test_a_last_block_that_fits_for_it_is_smaller_does_not_keep_the_batch_large(
    tiny_data: Images, tmp_path: Path
) -> None:
    """Workers attack it beside the first one."""
    run = flatguard.evaluate(
        Hungry().eval(), **PGD, data=tiny_data, batch_size=8, out=tmp_path / "run",
        checks="none", executor=Processes(2),
    )  # fmt: skip
    assert run.complete
    assert run.request.batch_size == 4


def test_a_model_that_one_image_is_too_much_for_is_one_line(
    tiny_data: Images, tmp_path: Path
) -> None:
    with pytest.raises(OutOfMemory, match=r"on images of shape .*: the memory is too small"):
        flatguard.evaluate(
            Hungry(most=0).eval(), **PGD, data=tiny_data, out=tmp_path / "run", batch_size=1
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("factor", [-1.0, 0.0])
@pytest.mark.parametrize("attack", ["square", "torchattacks:Square", "apgd-ce"])
def test_an_attack_that_fools_all_at_once_shows_the_model_no_empty_batch(
    attack: str, factor: float, tiny_data: Images, tmp_path: Path
) -> None:
    """Square looks at the samples that are left before it asks whether any are; with a
    margin of 0 none is left, and none counts as fooled."""
    images, _ = tiny_data
    images = (images * 255).round() / 255
    torch.manual_seed(0)
    net = tiny().eval()
    labels = net(images).argmax(dim=1)
    run = flatguard.evaluate(
        OffGrid(net, factor).eval(), attack, data=(images[labels > 0], labels[labels > 0]),
        norm="Linf", eps=0.03, batch_size=6, out=tmp_path / "run", checks="none",
    )  # fmt: skip
    assert not run.samples["failed"].any()
    assert run.summary["robust_accuracy"] == 0.0
