"""Writing a run folder: everything is staged, made durable, and given its name at once.

A block is staged in `RUN/.staging/00003.HOST.PID` and then renamed to `00003-1a2b3c4d5e6f`, after
the seal of its `block.json`, which holds the checksums of its files. So a block is there whole or
not at all, its name is its content, and whoever comes second with the same block changes nothing.
A staged block tells other processes on the folder that somebody is at it. That is only a hint: no
clock is read, and two that do the same block are merely slower.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from flatguard.environment.system import replace, sync
from flatguard.errors import RunFolderError
from flatguard.runs.facts import BlockFacts, BlockFailure, Manifest
from flatguard.runs.images import as_bytes, save_images
from flatguard.runs.owners import ending, sweep_dead
from flatguard.runs.storage import STAGING, RunStorage
from flatguard.runs.store import (
    ADVERSARIAL,
    BLOCKS,
    CLEAN,
    EVIDENCE,
    FAILED,
    LAYERS,
    MANIFEST,
    SAMPLES,
    TIMING,
    TRAJECTORY,
    Run,
    committed,
    load_run,
    sealed,
    sha256,
    write_text,
)
from flatguard.runs.untrusted import is_plain_folder


def check_new(storage: RunStorage) -> None:
    """Refuse a run folder that exists or cannot be made; writes nothing that stays.

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
    """Make the run folder, at once with its manifest; from here on the request is fixed."""
    check_new(storage)
    path = storage.path
    sweep_dead(path.parent, f".{path.name}")
    begun = path.with_name(f".{path.name}{ending()}")
    try:
        (begun / EVIDENCE / BLOCKS).mkdir(parents=True)
        write_text(begun / EVIDENCE / MANIFEST, sealed(manifest))
        replace(begun, path)
        sync(path.parent)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    storage.push()
    return Run(storage, manifest)


def drop_if_nothing_was_recorded(run: Run) -> None:
    """Remove a run folder that its own process made, and that nobody put anything into."""
    left = load_run(run.storage)
    if not left.blocks and not left.failures and not (run.path / STAGING).exists():
        run.storage.drop()


def sweep(run: Path) -> None:
    """Remove what processes of this machine left that are no more, and failures made good."""
    for index in committed(run):
        _forget_failure(run, index)
    if is_plain_folder(run / STAGING):
        sweep_dead(run / STAGING)
    _drop_if_empty(run / STAGING)


class BlockWriter:
    """Writes one block in the staging folder, and nothing stays but what is renamed.

    `commit` does so for a whole block, `keep_failure` for one whose attack raised. The trajectory
    goes to disk in row groups while the attack runs.
    """

    def __init__(self, run: Path, index: int):
        self._run, self._index = run, index
        self._name = f"block {index:05d} of {run}"
        self._folder = staged(run, f"{index:05d}")
        self._parquet: Any = None

    def __enter__(self) -> BlockWriter:
        with self._writing():
            self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what was written is not wanted
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
                # A path such as a:b/run would be taken for the address of a store.
                self._parquet = pq.ParquetWriter(
                    self._folder / TRAJECTORY, table.schema, compression="zstd",
                    filesystem=LocalFileSystem(),
                )  # fmt: skip
            self._parquet.write_table(table.cast(self._parquet.schema))

    def begin_again(self) -> None:
        """Forget the trajectory so far: the block is attacked once more, without some samples."""
        with self._writing():
            self._close()
            (self._folder / TRAJECTORY).unlink(missing_ok=True)

    def commit(
        self,
        samples: pd.DataFrame,
        clean: Tensor,
        adversarial: Tensor,
        facts: BlockFacts,
        seconds: dict[str, float],
        layers: pd.DataFrame | None = None,
    ) -> None:
        """Write what is left and give the block its name: from here on it counts.

        Where somebody else has committed it meanwhile, theirs stays.
        """
        with self._writing():
            self._close()
            samples.to_parquet(self._folder / SAMPLES, compression="zstd", index=False)
            if layers is not None:
                layers.to_parquet(self._folder / LAYERS, compression="zstd", index=False)
            save_images(self._folder / ADVERSARIAL, adversarial.float())
            save_images(self._folder / CLEAN, as_bytes(clean))
            whole = sealed(facts.model_copy(update={"files": checksums(self._folder)}))
            write_text(self._folder / "block.json", whole)
            write_text(self._folder / TIMING, json.dumps(seconds, indent=2))
            seal = json.loads(whole)["seal"]
            if self._index not in committed(self._run):
                name = f"{self._index:05d}-{seal[:12]}"
                give_name(self._folder, self._run / EVIDENCE / BLOCKS / name)
        _forget_failure(self._run, self._index)

    def keep_failure(self, failure: BlockFailure) -> None:
        """Keep what was streamed before the attack raised, in place of an earlier failure."""
        kept = self._run / EVIDENCE / FAILED / f"{self._index:05d}"
        earlier = staged(self._run, f"{self._index:05d}-earlier")
        with self._writing():
            self._close()
            is_plain_folder(kept.parent)
            whole = failure.model_copy(update={"files": checksums(self._folder)})
            write_text(self._folder / "failure.json", sealed(whole))
            kept.parent.mkdir(exist_ok=True)
            if kept.exists():
                replace(kept, earlier)
            give_name(self._folder, kept)
        shutil.rmtree(earlier, ignore_errors=True)

    def _close(self) -> None:
        if self._parquet is not None:
            parquet, self._parquet = self._parquet, None
            parquet.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(f"cannot write {self._name}: {error}") from error


def staged(run: Path, name: str) -> Path:
    """Where this process writes what will have that name.

    Raises:
        RunFolderError: the staging folder is a link, which would lead elsewhere.
    """
    is_plain_folder(run / STAGING)
    return run / STAGING / f"{name}{ending()}"


def unstage(folder: Path) -> None:
    """Remove what was staged and not renamed."""
    shutil.rmtree(folder, ignore_errors=True)
    _drop_if_empty(folder.parent)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by name."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir())}


def give_name(folder: Path, final: Path) -> None:
    """Rename a folder once its bytes are on the disk; what has that name already stays."""
    for file in folder.iterdir():
        sync(file)
    sync(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        replace(folder, final)
    except OSError:
        if not final.is_dir():
            raise
    sync(final.parent)


def _forget_failure(run: Path, index: int) -> None:
    failed = run / EVIDENCE / FAILED
    if is_plain_folder(failed):
        shutil.rmtree(failed / f"{index:05d}", ignore_errors=True)
        _drop_if_empty(failed)


def _drop_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
