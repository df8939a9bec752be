"""Where a run folder is: on a disk, or at an address that fsspec knows, such as s3://bucket/run."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

from flatguard.runs.layout import BLOCKS, EVIDENCE, STAGING
from flatguard.runs.remote import Address


class RunStorage(Protocol):
    """Where a run folder is; its files are read and written under `path`."""

    path: Path

    def pull(self, blocks: bool = True) -> None:
        """Fetch the manifest, and the evidence that other processes have committed."""

    def push(self) -> None:
        """Upload what is new in the local folder."""

    def fetch_block(self, index: int) -> bool:
        """Whether any process has committed a block; it is then in the local folder too."""

    def working_on(self, index: int) -> AbstractContextManager[None]:
        """Show other processes that this one attacks a block; a hint, not a lock."""

    def is_begun(self, index: int) -> bool:
        """Whether a process seems to attack a block."""

    def drop(self) -> None:
        """Remove the run."""


class Folder:
    """A run folder on a disk, which all processes that see it share already."""

    def __init__(self, path: Path):
        self.path = path
        self._had_parent = path.parent.exists()

    def pull(self, blocks: bool = True) -> None:
        """Nothing to do."""

    def push(self) -> None:
        """Nothing to do."""

    def fetch_block(self, index: int) -> bool:
        """Whether it is committed."""
        return any((self.path / EVIDENCE / BLOCKS).glob(f"{index:05d}-*"))

    def working_on(self, index: int) -> AbstractContextManager[None]:
        """Nothing to do: other processes see the staged folder of the block."""
        return nullcontext()

    def is_begun(self, index: int) -> bool:
        """Whether something is staged for it."""
        return any((self.path / STAGING).glob(f"{index:05d}.*"))

    def drop(self) -> None:
        """Remove the folder, and its parent if that was not there before and is empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        if not self._had_parent:
            with suppress(OSError):
                self.path.parent.rmdir()

    def __str__(self) -> str:
        return str(self.path)


def open_storage(location: str | Path) -> RunStorage:
    """The storage of a run folder; nothing is read yet.

    An address on this disk is opened as a folder, so that links and pipes in it are refused.
    """
    text = str(location)
    if not isinstance(location, str) or "://" not in text:
        return Folder(Path(text))
    if text.startswith(("file://", "local://")):
        import fsspec

        return Folder(Path(fsspec.core.url_to_fs(text)[1]))
    return Address(text)
