"""A run folder at an address, such as s3://bucket/run, with a local mirror.

The process works in the mirror. `push` uploads what is new: of a block or a check's evidence the
file with its checksums comes last, and without it the folder does not count. `pull` fetches what
other processes have committed. The name of a block is its content, so two processes that upload
the same block write the same bytes. A store lists a thousand names at a time, so nothing that is
done for each block lists names: `.committed/00003` holds the name of block 3. If that file is
missing, the block is only attacked once more.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from flatguard.environment.requirements import install_command
from flatguard.environment.system import replace
from flatguard.errors import NoRoom, RunFolderError, no_room, one_line
from flatguard.runs.layout import BLOCK, BLOCK_NAME, FAILURE, PROBE, STAGING
from flatguard.runs.owners import ending, sweep_dead
from flatguard.runs.untrusted import copy_bounded

_MARKERS = (BLOCK, PROBE, FAILURE)
"""The file of a folder that makes it count; it is uploaded last."""

_MIRROR, _COMMITTED = "flatguard-mirror-", ".committed"
_MANIFEST, _BLOCKS = "evidence/manifest.json", "evidence/blocks"
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class Address:
    """A run folder at an address, with a mirror that is removed when the process ends.

    If the process is killed, the next one on this host removes the mirror.

    Raises:
        RunFolderError: the address cannot be reached, or needs an extra.
    """

    def __init__(self, address: str):
        self._address = address.rstrip("/")
        sweep_dead(Path(tempfile.gettempdir()), _MIRROR)
        self._kept = tempfile.TemporaryDirectory(
            prefix=_MIRROR, suffix=ending(), ignore_cleanup_errors=True
        )
        self.path = Path(self._kept.name) / PurePosixPath(self._address).name
        self._pushed: dict[str, str] = {}
        self._blocks: set[str] = set()
        with self._reaching():
            self._files, self._root = _connected(self._address)

    def pull(self, blocks: bool = True) -> None:
        """Fetch the manifest, and all published folders that are not in the mirror."""
        with self._reaching():
            self._files.invalidate_cache()
            if not self._files.exists(f"{self._root}/{_MANIFEST}"):
                return
            self._fetch(_MANIFEST, self.path / _MANIFEST)
            names = self._names(self._files.find(self._root)) if blocks else []
            folders = defaultdict(list)
            for name in names:
                folders[str(PurePosixPath(name).parent)].append(name)
            for folder, files in folders.items():
                if any(PurePosixPath(file).name in _MARKERS for file in files):
                    self._fetch_folder(folder, files)
            for name in folders.get(".", []):
                self._fetch(name, self.path / name)

    def push(self) -> None:
        """Upload new folders of the evidence, and the derived files that changed.

        Cost: no requests for anything else.
        """
        with self._reaching():
            if _MANIFEST not in self._pushed:  # it never changes
                self._send(self.path / _MANIFEST)
            for folder in self._new_folders():
                marker = next((f for f in folder.iterdir() if f.name in _MARKERS), None)
                if marker is not None and self._is_new(marker):
                    for file in sorted(folder.iterdir()):
                        if file != marker:
                            self._send(file)
                    self._send(marker)
                    if marker.name == BLOCK:
                        self._committed(folder.name)
            for file in sorted(self.path.iterdir()):
                if file.is_file() and self._is_new(file):
                    self._send(file)

    def _new_folders(self) -> list[Path]:
        """Folders of the evidence that are not known to be at the address."""
        kinds = [kind for kind in sorted(self.path.glob("evidence/*")) if kind.is_dir()]
        return [
            folder
            for kind in kinds
            for folder in sorted(kind.iterdir())
            if folder.name not in self._blocks and folder.is_dir()
        ]

    def _committed(self, name: str) -> None:
        """Record that a block is at the address, so that others find it; remove its failure."""
        self._blocks.add(name)
        index = name.partition("-")[0]
        self._files.pipe_file(f"{self._root}/{_COMMITTED}/{index}", name.encode())
        failed = f"{self._root}/evidence/failed/{index}"
        if self._files.exists(failed):
            self._files.rm(failed, recursive=True)

    def fetch_block(self, index: int) -> bool:
        """Whether it is committed at the address; it is fetched if it is not in the mirror yet."""
        with self._reaching():
            self._files.invalidate_cache()
            mark = f"{self._root}/{_COMMITTED}/{index:05d}"
            if not self._files.exists(mark):
                return False
            name = self._files.cat_file(mark, start=0, end=100).decode("ascii", "replace")
            if not (re.fullmatch(BLOCK_NAME, name) and name.startswith(f"{index:05d}-")):
                return False
            folder = f"{_BLOCKS}/{name}"
            names = self._names(self._files.ls(f"{self._root}/{folder}", detail=False))
            if f"{folder}/block.json" in names:
                self._fetch_folder(folder, names)
            return (self.path / folder).is_dir()

    @contextmanager
    def working_on(self, index: int) -> Iterator[None]:
        """Keep an empty file at the address; a killed process leaves it there."""
        mark = f"{self._root}/{STAGING}/{index:05d}{ending()}"
        with self._reaching():
            self._files.pipe_file(mark, b"")
        try:
            yield
        finally:
            with suppress(Exception):  # it is only a hint
                self._files.rm_file(mark)

    def is_begun(self, index: int) -> bool:
        """Whether there is such a file."""
        with self._reaching():
            self._files.invalidate_cache()
            try:
                names = self._files.ls(f"{self._root}/{STAGING}", detail=False)
            except FileNotFoundError:
                return False
            return any(PurePosixPath(name).name.startswith(f"{index:05d}.") for name in names)

    def drop(self) -> None:
        """Remove the run at the address and in the mirror."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._pushed.clear()
        self._blocks.clear()
        with self._reaching():
            self._files.rm(self._root, recursive=True)

    def _names(self, found: Iterable[str]) -> list[str]:
        """Their names within the run."""
        names = [str(PurePosixPath(name).relative_to(self._root)) for name in found]
        strange = [name for name in names if ".." in PurePosixPath(name).parts]
        if strange:
            raise RunFolderError(f"{self} names files outside of itself: {strange[0]}")
        return names

    def _fetch_folder(self, folder: str, files: list[str]) -> None:
        final = self.path / folder
        if final.exists():
            return
        coming = self.path / STAGING / folder.replace("/", "-")
        shutil.rmtree(coming, ignore_errors=True)
        for name in files:
            self._fetch(name, coming / PurePosixPath(name).name)
        final.parent.mkdir(parents=True, exist_ok=True)
        replace(coming, final)
        if final.parent == self.path / _BLOCKS:
            self._blocks.add(final.name)
        self._drop_staging()

    def _drop_staging(self) -> None:
        staging = self.path / STAGING
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()

    def _fetch(self, name: str, file: Path) -> None:
        if file.is_file() and name.startswith("evidence/"):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._files.open(f"{self._root}/{name}", "rb") as remote:
            copy_bounded(remote, file, f"{self}/{name}")
        if self._is_tracked(file):
            self._pushed[name] = _digest(file.read_bytes())

    def _is_tracked(self, file: Path) -> bool:
        """Whether a file is uploaded again if it has changed: derived files, and JSON."""
        return file.parent == self.path or file.suffix == ".json"

    def _is_new(self, file: Path) -> bool:
        return self._pushed.get(self._name(file)) != _digest(file.read_bytes())

    def _send(self, file: Path) -> None:
        content, name = file.read_bytes(), self._name(file)
        self._files.pipe_file(f"{self._root}/{name}", content)
        if self._is_tracked(file):
            self._pushed[name] = _digest(content)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RunFolderError:
            raise
        except Exception as error:  # every store raises its own
            why = no_room(error)
            if why is not None:
                raise NoRoom(f"{self.path}, the copy of {self._address}: {why}") from error
            raise RunFolderError(
                f"{self._address} cannot be reached: {type(error).__name__}: {one_line(error)}"
            ) from error

    def __str__(self) -> str:
        return self._address


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _connected(address: str) -> tuple[Any, str]:
    import fsspec

    protocol = address.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        how = install_command(f"flatguard[{extra}]") if extra else one_line(error)
        raise RunFolderError(f"{address} needs another package: {how}") from error
    except ValueError as error:
        raise RunFolderError(f"{address}: {one_line(error)}") from error
    return files, str(root)
