"""Checksums of files."""

import hashlib
from pathlib import Path

import pytest

from flatguard.errors import RunFolderError
from flatguard.runs.checksums import checksums, compare, sha256


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    files = checksums(tmp_path)
    assert list(files) == ["a", "b"]
    compare(tmp_path, files)
    (tmp_path / "c").write_bytes(b"more files do not matter")
    compare(tmp_path, files)
    (tmp_path / "b").write_bytes(b"x")
    with pytest.raises(RunFolderError, match="b is damaged: its checksum does not match"):
        compare(tmp_path, files)
    (tmp_path / "a").unlink()
    with pytest.raises(RunFolderError, match="a is missing"):
        compare(tmp_path, files)
