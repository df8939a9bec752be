"""The storage of a run folder: a folder for every path and address of this disk."""

from pathlib import Path

import pytest

import flatguard
from benchmarks.fuzz.loaders import TINY
from benchmarks.synthetic import make_run
from flatguard.errors import RunFolderError
from flatguard.runs.remote import Address
from flatguard.runs.storage import Folder, open_storage


def test_an_address_of_this_disk_is_a_folder(tmp_path: Path) -> None:
    """So that a link in it is refused, not fetched."""
    make_run(tmp_path / "run", TINY)
    address = f"file://{tmp_path}/run"
    assert flatguard.load_run(address).complete
    manifest = tmp_path / "run/evidence/manifest.json"
    manifest.rename(tmp_path / "elsewhere")
    manifest.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="is a link"):
        flatguard.load_run(address)


def test_a_long_number_is_no_short_one(tmp_path: Path) -> None:
    """Block 100000 says nothing about block 10000."""
    (tmp_path / "evidence/blocks/100000-0123456789ab").mkdir(parents=True)
    place = open_storage(tmp_path)
    assert place.fetch_block(100000)
    assert not place.fetch_block(10000)


def test_what_is_a_folder_and_what_an_address(tmp_path: Path) -> None:
    for location in (tmp_path / "run", str(tmp_path / "run"), f"file://{tmp_path}/run"):
        storage = open_storage(location)
        assert isinstance(storage, Folder)
        assert storage.path == tmp_path / "run"
    assert isinstance(open_storage("memory://bucket/run"), Address)
    assert isinstance(open_storage(Path("s3://is/a/path")), Folder)


def test_a_dropped_folder_takes_an_empty_parent_of_its_own_along(tmp_path: Path) -> None:
    for parent in ("made", "there"):
        if parent == "there":
            (tmp_path / parent).mkdir()
        storage = open_storage(tmp_path / parent / "run")
        storage.path.mkdir(parents=True)
        storage.drop()
        assert (tmp_path / parent).exists() == (parent == "there")
