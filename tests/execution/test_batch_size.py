"""Out of memory halves the batch."""

import math
from pathlib import Path

import pytest
import torch
from support.architectures import Hungry, Large
from support.evidence_files import evidence_files
from support.failing import PGD
from support.listeners import Listener

import flatguard
from flatguard.errors import OutOfMemory
from flatguard.execution.batch_size import default_batch_size, halve_batch
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.runs.run import Run
from flatguard.runs.storage import open_storage
from flatguard.runs.writing import create

Images = tuple[torch.Tensor, torch.Tensor]


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
