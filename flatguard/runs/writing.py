"""Makes a run folder, and writes its blocks.

A staged block also tells other processes on the folder that one is at work on it. That is only a
hint: no clock is read, and two processes that attack the same block only lose time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from flatguard.environment.system import replace, sync
from flatguard.errors import RunFolderError
from flatguard.recording.mistakes import KeptMistakes
from flatguard.runs.facts import BlockFacts, BlockFailure, Manifest
from flatguard.runs.images import as_bytes, save_images, save_mistakes
from flatguard.runs.json_files import write_sealed
from flatguard.runs.layout import (
    ADVERSARIAL,
    BLOCK,
    BLOCKS,
    CLEAN,
    EVIDENCE,
    FAILED,
    FAILURE,
    LAYERS,
    MANIFEST,
    MISTAKES,
    SAMPLES,
    STAGING,
    TRAJECTORY,
    committed,
)
from flatguard.runs.owners import ending, sweep_dead
from flatguard.runs.publishing import complete, drop_if_empty, publish, stage, unstage, writing
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import RunStorage
from flatguard.runs.untrusted import is_plain_folder


def check_new(storage: RunStorage) -> None:
    """Refuse a run folder that exists or cannot be made; nothing is left there.

    Raises:
        RunFolderError: with what to do.
    """
    storage.pull()
    path = storage.path
    if path.exists():
        raise RunFolderError(f"{storage} exists already; name another folder with --out")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".flatguard-"):
            pass
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {parent}: {error.strerror}; name another folder with --out"
        ) from error


def create(storage: RunStorage, manifest: Manifest) -> Run:
    """Make the run folder together with its manifest; from here on the request is fixed."""

    def fill(evidence: Path) -> None:
        (evidence / BLOCKS).mkdir()
        write_sealed(evidence / MANIFEST, manifest)

    make_folder(storage, fill)
    return Run(storage, manifest)


def make_folder(storage: RunStorage, fill: Callable[[Path], object]) -> None:
    """Make a run folder whose evidence is filled before anybody sees it.

    Args:
        storage: where; there must be nothing yet.
        fill: writes into the folder of the evidence.
    """
    check_new(storage)
    path = storage.path
    sweep_dead(path.parent, f".{path.name}")
    begun = path.with_name(f".{path.name}{ending()}")
    try:
        with writing(str(path)):
            (begun / EVIDENCE).mkdir(parents=True)
            fill(begun / EVIDENCE)
            replace(begun, path)
            sync(path.parent)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    storage.push()


def drop_if_nothing_was_recorded(run: Run) -> None:
    """Remove a run folder that this process made, if no process has written anything into it."""
    left = load_run(run.storage)
    if not left.blocks and not left.failures and not (run.path / STAGING).exists():
        run.storage.drop()


def sweep(run: Path) -> None:
    """Remove what ended processes of this machine left, and failures of committed blocks."""
    for index in committed(run):
        _forget_failure(run, index)
    if is_plain_folder(run / STAGING):
        sweep_dead(run / STAGING)
    drop_if_empty(run / STAGING)


class BlockWriter:
    """Writes one block in the staging folder; `commit` or `keep_failure` publishes it.

    The trajectory goes to disk in row groups while the attack runs. What is not published is
    removed on exit.
    """

    def __init__(self, run: Path, index: int):
        self._run, self._index = run, index
        self._folder = stage(run, f"{index:05d}")
        self._parquet: Any = None

    def __enter__(self) -> BlockWriter:
        with self._writing():
            self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the rows are removed anyway
            self._close()
        unstage(self._folder)

    def append(self, rows: pd.DataFrame) -> None:
        """Write the next row group of the trajectory."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyarrow.fs import LocalFileSystem

        table = pa.Table.from_pandas(rows, preserve_index=False)
        with self._writing():
            if self._parquet is None:
                # Without a file system, pyarrow takes a path such as a:b/run for an address.
                self._parquet = pq.ParquetWriter(
                    self._folder / TRAJECTORY, table.schema, compression="zstd",
                    filesystem=LocalFileSystem(),
                )  # fmt: skip
            self._parquet.write_table(table.cast(self._parquet.schema))

    def begin_again(self) -> None:
        """Remove the trajectory so far: the block is attacked again, without some samples."""
        with self._writing():
            self._close()
            (self._folder / TRAJECTORY).unlink(missing_ok=True)

    def keep_mistakes(self, kept: KeptMistakes | None) -> None:
        """Write the examples that the attack passed through; `commit` publishes them."""
        if kept is not None:
            with self._writing():
                save_mistakes(self._folder / MISTAKES, kept)

    def commit(
        self,
        samples: pd.DataFrame,
        clean: Tensor,
        adversarial: Tensor,
        facts: BlockFacts,
        seconds: dict[str, float],
        layers: pd.DataFrame | None = None,
    ) -> None:
        """Write the other files and publish the block: from here on it counts.

        If another process has committed the block meanwhile, nothing changes.
        """
        with self._writing():
            self._close()
            samples.to_parquet(self._folder / SAMPLES, compression="zstd", index=False)
            if layers is not None:
                layers.to_parquet(self._folder / LAYERS, compression="zstd", index=False)
            save_images(self._folder / ADVERSARIAL, adversarial.float())
            save_images(self._folder / CLEAN, as_bytes(clean))
            seal = complete(self._folder, BLOCK, facts, seconds)
            if self._index not in committed(self._run):
                name = f"{self._index:05d}-{seal[:12]}"
                publish(self._folder, self._run / EVIDENCE / BLOCKS / name)
        _forget_failure(self._run, self._index)

    def keep_failure(self, failure: BlockFailure) -> None:
        """Publish the rows until the attack raised, in place of an earlier failure."""
        kept = self._run / EVIDENCE / FAILED / f"{self._index:05d}"
        with self._writing():
            self._close()
            is_plain_folder(kept.parent)
            complete(self._folder, FAILURE, failure)
            publish(self._folder, kept, replaces=True)

    def _close(self) -> None:
        if self._parquet is not None:
            parquet, self._parquet = self._parquet, None
            parquet.close()

    def _writing(self) -> AbstractContextManager[None]:
        return writing(f"block {self._index:05d} of {self._run}")


def _forget_failure(run: Path, index: int) -> None:
    failed = run / EVIDENCE / FAILED
    if is_plain_folder(failed):
        shutil.rmtree(failed / f"{index:05d}", ignore_errors=True)
        drop_if_empty(failed)
