"""A folder with one subfolder of images per class."""

from __future__ import annotations

from pathlib import Path

from flatguard.data.dataset import Dataset
from flatguard.data.image_files import SUFFIXES, ImageFiles
from flatguard.data.reading import reading
from flatguard.errors import DataError


def load(root: Path, preprocessing: str | None) -> Dataset:
    """The images of all subfolders, sorted by class and then by file name.

    Subfolders whose names are all numbers are labels; otherwise label i is the i-th name in
    alphabetical order.
    """
    with reading(root):
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
        files = [
            (file, index)
            for index, folder in enumerate(folders)
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
    if not files:
        raise DataError(f"{root}: expected a subfolder a class with images ({SUFFIXES[0]})")
    names = [folder.name for folder in folders]
    numeric = all(name.isdecimal() for name in names)
    if numeric and any(len(name) > 9 for name in names):
        raise DataError(f"{root}: expected folders named by a label, or by a class")
    labels = [int(names[index]) if numeric else index for _, index in files]
    served = ImageFiles([file for file, _ in files], labels, preprocessing, root.name)
    served.classes = None if numeric else tuple(names)
    return served
