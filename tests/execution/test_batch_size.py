"""Out of memory halves the batch."""

import math
import time
from pathlib import Path

import pytest
import torch
from support.architectures import Hungry, Large, tiny
from support.evidence_files import evidence_files
from support.failing import PGD
from support.listeners import Listener
from torch import nn

import flatguard
from flatguard.data.arrays import ArrayDataset
from flatguard.errors import OutOfMemory, UsageError
from flatguard.execution.batch_size import batch_size_for, default_batch_size, halve_batch
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.runs.run import Run
from flatguard.runs.storage import open_storage
from flatguard.runs.writing import create
from flatguard.targets import make_target

Images = tuple[torch.Tensor, torch.Tensor]


def test_out_of_memory_is_another_run_that_says_so(tiny_data: Images, tmp_path: Path) -> None:
    listener = Listener()

    run = flatguard.evaluate(
        Large().eval(), **PGD, data=tiny_data, batch_size=12, out=tmp_path / "run",
        progress=listener, checks="none",
    )  # fmt: skip
    assert run.request.batch_size == 3
    assert sum("another run, with batches of" in line for line in listener.lines) == 2
    smaller = flatguard.evaluate(
        Large().eval(), **PGD, data=tiny_data, batch_size=3, out=tmp_path / "three", checks="none"
    )
    assert evidence_files(run.path) == evidence_files(smaller.path)


@pytest.mark.parametrize(
    ("when", "of_numpy", "executor", "batch_size"),
    [
        ("clean", False, InProcess(), 12), ("always", False, InProcess(), 12),
        ("always", True, InProcess(), 12), ("gradient", False, InProcess(), 12),
        ("clean", False, Processes(2), 6),
    ],
)  # fmt: skip
def test_memory_that_runs_out_in_any_pass_halves_the_batch(
    when: str,
    of_numpy: bool,
    executor: Executor,
    batch_size: int,
    tiny_data: Images,
    tmp_path: Path,
) -> None:
    """The allocator's own error, in the first look, the clean pass, the attack or the last pass."""
    listener = Listener()
    run = flatguard.evaluate(
        Hungry(when, of_numpy).eval(), **PGD, data=tiny_data, batch_size=batch_size,
        out=tmp_path / "run", progress=listener, checks="none", executor=executor,
    )  # fmt: skip
    assert run.request.batch_size == 3
    halved = sum("another run, with batches of" in line for line in listener.lines)
    assert halved == batch_size // 6
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


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 28, 28), 128), ((3, 32, 32), 128), ((3, 224, 224), 32), ((3, 3000, 3000), 1)],
)
def test_larger_images_come_in_smaller_batches(shape: tuple[int, ...], expected: int) -> None:
    assert default_batch_size(math.prod(shape)) == expected


def test_only_a_lack_of_memory_halves_the_batch(run: Run, tmp_path: Path) -> None:
    assert halve_batch(run, OutOfMemory("too small")) is None  # both of its batches fitted
    bare = plan_of(run, tmp_path / "bare")
    smaller = halve_batch(bare, OutOfMemory("too small"))
    assert smaller == run.request.model_copy(update={"batch_size": 3})
    assert halve_batch(bare, RuntimeError("something else")) is None


def plan_of(run: Run, folder: Path) -> Run:
    """The same run before its first block."""
    return create(open_storage(folder), run.manifest)


class Slow(nn.Module):
    """A pass takes so many seconds a batch and a pair of samples; there is room for so many."""

    def __init__(self, batch: float, pair: float, room: int = 10_000):
        super().__init__()
        self.batch, self.pair, self.room, self.calls = batch, pair, room, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if len(x) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        time.sleep(self.batch + self.pair * len(x) ** 2)
        return x.flatten(1)[:, :3]


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        (Slow(0.0, 0.002), 40, 8),  # twice the batch is four times as slow
        (Slow(0.2, 0.0), 40, 40),  # all samples in one batch
        (Slow(0.2, 0.0, room=20), 40, 16),
        (Slow(0.02, 0.0, room=3), 40, 1),
        (Slow(0.2, 0.0), 5, 5),
    ],
)
def test_auto_takes_the_batch_from_which_on_a_larger_one_saves_nothing(
    model: Slow, count: int, expected: int
) -> None:
    images, device = torch.rand(count, 3, 2, 2), torch.device("cpu")
    target = make_target(model.eval(), "slow", "a test")
    data = ArrayDataset(images, torch.zeros(count).long(), "data")
    assert batch_size_for("auto", target, data, count, device) == expected
    assert model.calls == 0  # what a model keeps between calls is put back


def test_the_size_that_was_found_is_the_runs(tiny_data: Images, tmp_path: Path) -> None:
    model = tiny().eval()
    run = flatguard.evaluate(
        model, **PGD, data=tiny_data, batch_size="auto", checks="none", out=tmp_path / "a"
    )
    size = run.request.batch_size
    assert isinstance(size, int)
    assert 1 <= size <= 12
    again = flatguard.evaluate(
        model, **PGD, data=tiny_data, batch_size=size, checks="none", out=tmp_path / "b"
    )
    assert evidence_files(run.path) == evidence_files(again.path)


def test_shards_are_given_a_number(tiny_data: Images, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch-size auto may find another size in each shard"):
        flatguard.evaluate(
            tiny().eval(), **PGD, data=tiny_data, batch_size="auto", shard="1/2", out=tmp_path / "a"
        )
