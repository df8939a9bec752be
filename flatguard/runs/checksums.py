"""SHA-256 of the files of a folder, and their comparison."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flatguard.errors import RunFolderError
from flatguard.runs.json_files import reading
from flatguard.runs.untrusted import check_file


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by name."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir())}


def compare(folder: Path, files: dict[str, str]) -> None:
    """Compare the files of a folder with their checksums, by name.

    Raises:
        RunFolderError: names the first file that is missing or differs.
    """
    for name, expected in files.items():
        file = folder / name
        with reading(file):
            check_file(file)
            if sha256(file) != expected:
                raise RunFolderError(f"{file} is damaged: its checksum does not match")
