"""Where a run folder lies: on a disk, or at an address that fsspec knows, such as s3://bucket/run.

A run at an address is worked on in a folder of this process, its mirror. `push` uploads what is
new: of a block or a probe the file with its checksums comes last, and without it nothing counts.
`pull` fetches what others have committed. A block's name is its content, so that two who upload
the same one write the same bytes. A store lists a thousand names at a time, so nothing that is done
for each block lists them: `.committed/00003` holds the name of block 3. Where it is missing, the
block is only attacked once more.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from flatguard.environment.requirements import install_command
from flatguard.environment.system import replace
from flatguard.errors import RunFolderError, one_line
from flatguard.runs.owners import ending, sweep_dead
from flatguard.runs.untrusted import copy_bounded

MARKERS = ("block.json", "probe.json", "failure.json")
"""The file of a folder that makes it count; its name stands in the order of writing."""

MIRROR, STAGING, COMMITTED = "flatguard-mirror-", ".staging", ".committed"
MANIFEST, BLOCKS = "evidence/manifest.json", "evidence/blocks"
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class RunStorage(Protocol):
    """Where a run folder lies; `path` is where its files are read and written."""

    path: Path

    def pull(self, blocks: bool = True) -> None:
        """Fetch the manifest, and what others have committed."""

    def push(self) -> None:
        """Show others what is new here."""

    def fetch_block(self, index: int) -> bool:
        """Whether somebody, somewhere, has committed a block; it then lies here, too."""

    def working_on(self, index: int) -> AbstractContextManager[None]:
        """While this process is at a block, others may see it; a hint, and no lock."""

    def is_begun(self, index: int) -> bool:
        """Whether somebody seems to be at a block."""

    def drop(self) -> None:
        """Remove the run."""


class Folder:
    """A run folder on a disk, which all who see it share already."""

    def __init__(self, path: Path):
        self.path = path
        self._had_parent = path.parent.exists()

    def pull(self, blocks: bool = True) -> None:
        """Nothing to do."""

    def push(self) -> None:
        """Nothing to do."""

    def fetch_block(self, index: int) -> bool:
        """Whether it is committed."""
        blocks = self.path / "evidence" / "blocks"
        return (blocks / f"{index:05d}").exists() or any(blocks.glob(f"{index:05d}-*"))

    def working_on(self, index: int) -> AbstractContextManager[None]:
        """Nothing to do: what is staged for a block is there for all to see."""
        return nullcontext()

    def is_begun(self, index: int) -> bool:
        """Whether something is staged for it."""
        return any((self.path / STAGING).glob(f"{index:05d}.*"))

    def drop(self) -> None:
        """Remove the folder, and the one above it if that was not there before and is empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        if not self._had_parent:
            with suppress(OSError):
                self.path.parent.rmdir()

    def __str__(self) -> str:
        return str(self.path)


class Address:
    """A run folder at an address, with a mirror that is gone when the process ends.

    Where the process is killed, the next one on this host removes the mirror.

    Raises:
        RunFolderError: the address cannot be reached, or needs an extra.
    """

    def __init__(self, address: str):
        self._address = address.rstrip("/")
        sweep_dead(Path(tempfile.gettempdir()), MIRROR)
        self._kept = tempfile.TemporaryDirectory(
            prefix=MIRROR, suffix=ending(), ignore_cleanup_errors=True
        )
        self.path = Path(self._kept.name) / PurePosixPath(self._address).name
        self._pushed: dict[str, str] = {}
        self._blocks: set[str] = set()
        with self._reaching():
            self._files, self._root = _connected(self._address)

    def pull(self, blocks: bool = True) -> None:
        """Fetch the manifest, whole blocks and probes, and failures; what is here stays."""
        with self._reaching():
            self._files.invalidate_cache()
            if not self._files.exists(f"{self._root}/{MANIFEST}"):
                return
            self._fetch(MANIFEST, self.path / MANIFEST)
            names = self._names(self._files.find(self._root)) if blocks else []
            folders = defaultdict(list)
            for name in names:
                folders[str(PurePosixPath(name).parent)].append(name)
            for folder, files in folders.items():
                if any(PurePosixPath(file).name in MARKERS for file in files):
                    self._fetch_folder(folder, files)
            for name in folders.get(".", []):
                self._fetch(name, self.path / name)

    def push(self) -> None:
        """Upload new folders of the evidence, and what is derived from it.

        Cost: requests for what is new alone.
        """
        with self._reaching():
            if MANIFEST not in self._pushed:  # it never changes
                self._send(self.path / MANIFEST)
            for folder in self._new_folders():
                marker = next((f for f in folder.iterdir() if f.name in MARKERS), None)
                if marker is not None and self._is_new(marker):
                    for file in sorted(folder.iterdir()):
                        if file != marker:
                            self._send(file)
                    self._send(marker)
                    if marker.name == "block.json":
                        self._committed(folder.name)
            for file in sorted(self.path.iterdir()):
                if file.is_file() and self._is_new(file):
                    self._send(file)

    def _new_folders(self) -> list[Path]:
        """Folders of the evidence that are not known to be at the address as they are here."""
        kinds = [kind for kind in sorted(self.path.glob("evidence/*")) if kind.is_dir()]
        return [
            folder
            for kind in kinds
            for folder in sorted(kind.iterdir())
            if folder.name not in self._blocks and folder.is_dir()
        ]

    def _committed(self, name: str) -> None:
        """A block is at the address: others find it, and it has not failed."""
        self._blocks.add(name)
        index = name.partition("-")[0]
        self._files.pipe_file(f"{self._root}/{COMMITTED}/{index}", name.encode())
        failed = f"{self._root}/evidence/failed/{index}"
        if self._files.exists(failed):
            self._files.rm(failed, recursive=True)

    def fetch_block(self, index: int) -> bool:
        """Whether it is committed at the address; it is fetched if it is not here yet."""
        with self._reaching():
            self._files.invalidate_cache()
            mark = f"{self._root}/{COMMITTED}/{index:05d}"
            if not self._files.exists(mark):
                return False
            name = self._files.cat_file(mark, start=0, end=100).decode("ascii", "replace")
            if not re.fullmatch(rf"{index:05d}(-[0-9a-f]{{12}})?", name):
                return False
            folder = f"{BLOCKS}/{name}"
            names = self._names(self._files.ls(f"{self._root}/{folder}", detail=False))
            if f"{folder}/block.json" in names:
                self._fetch_folder(folder, names)
            return (self.path / folder).is_dir()

    @contextmanager
    def working_on(self, index: int) -> Iterator[None]:
        """A file of no length stands at the address, which a killed process leaves there."""
        mark = f"{self._root}/{STAGING}/{index:05d}{ending()}"
        with self._reaching():
            self._files.pipe_file(mark, b"")
        try:
            yield
        finally:
            with suppress(Exception):  # it is only a hint
                self._files.rm_file(mark)

    def is_begun(self, index: int) -> bool:
        """Whether such a file stands there."""
        with self._reaching():
            self._files.invalidate_cache()
            try:
                names = self._files.ls(f"{self._root}/{STAGING}", detail=False)
            except FileNotFoundError:
                return False
            return any(PurePosixPath(name).name.startswith(f"{index:05d}.") for name in names)

    def drop(self) -> None:
        """Remove it there and here."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._pushed.clear()
        self._blocks.clear()
        with self._reaching():
            self._files.rm(self._root, recursive=True)

    def _names(self, found: Iterable[str]) -> list[str]:
        """As they are called within the run."""
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
        if final.parent == self.path / BLOCKS:
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
        if self._is_told_apart(file):
            self._pushed[name] = _digest(file.read_bytes())

    def _is_told_apart(self, file: Path) -> bool:
        """Whether a file is sent again where it has changed: what counts, and what is derived."""
        return file.parent == self.path or file.suffix == ".json"

    def _is_new(self, file: Path) -> bool:
        return self._pushed.get(self._name(file)) != _digest(file.read_bytes())

    def _send(self, file: Path) -> None:
        content, name = file.read_bytes(), self._name(file)
        self._files.pipe_file(f"{self._root}/{name}", content)
        if self._is_told_apart(file):
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
        extra = EXTRAS.get(protocol)
        how = install_command(f"flatguard[{extra}]") if extra else one_line(error)
        raise RunFolderError(f"{address} needs another package: {how}") from error
    except ValueError as error:
        raise RunFolderError(f"{address}: {one_line(error)}") from error
    return files, str(root)


def open_storage(location: str | Path) -> RunStorage:
    """The place of a run folder; nothing is read yet.

    An address of this disk is a folder, so that its links and pipes are seen for what they are.
    """
    text = str(location)
    if not isinstance(location, str) or "://" not in text:
        return Folder(Path(text))
    if text.startswith(("file://", "local://")):
        import fsspec

        return Folder(Path(fsspec.core.url_to_fs(text)[1]))
    return Address(text)
