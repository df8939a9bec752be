"""A folder with one subfolder of images per class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from flatguard.data.class_names import mapping_note
from flatguard.data.dataset import Dataset
from flatguard.data.image_files import ImageFiles, is_ignored
from flatguard.data.pictures import SUFFIXES
from flatguard.data.reading import reading
from flatguard.errors import DataError

_LONGEST_NUMBER = 9
_MOST_NAMES = 100_000
_NUMBERS = (
    "a folder whose name is a number has this label; give --classes FILE with the names of the "
    "folders, one a line in the model's order, if the model counts otherwise"
)


def load(root: Path, preprocessing: str | None) -> Dataset:
    """The images of all subfolders, sorted by class and then by file name.

    Subfolders whose names are all numbers are labels, also where they count from 1; otherwise
    label i is the i-th name in alphabetical order. Hidden files and folders, and what operating
    systems leave, are ignored. The labels are in the data set's notes.
    """
    with reading(root, "is no folder of images"):
        found = _Folders.of(root)
    if not found.files:
        raise DataError(_without_images(root, found))
    if found.deeper:
        raise DataError(
            f"{root}: expected images in one subfolder a class, got some in {found.deeper}; give "
            "the folder whose subfolders are the classes"
        )
    names = list(found.files)
    numeric = all(name.isascii() and name.isdecimal() for name in names)
    if numeric and any(len(name) > _LONGEST_NUMBER for name in names):
        raise DataError(f"{root}: expected folders named by a label, or by a class")
    labels = {name: int(name) if numeric else index for index, name in enumerate(names)}
    _check_numbers(root, labels)
    files = [(file, labels[name]) for name in names for file in found.files[name]]
    served = ImageFiles(
        [file for file, _ in files], [label for _, label in files], preprocessing, root.name
    )
    by_label = {label: name for name, label in labels.items()}
    if max(by_label) < _MOST_NAMES:
        served.classes = tuple(by_label.get(i, str(i)) for i in range(max(by_label) + 1))
    served.label_advice = _NUMBERS if numeric else ""
    served.notes = (mapping_note(by_label, "folders"), *found.notes(root))
    return served


@dataclass
class _Folders:
    """What lies in a folder of images.

    Attributes:
        files: the images of each subfolder, both sorted by name.
        deeper: a subfolder of a subfolder that has images.
        beside: the number of images that lie beside the subfolders.
        others: the number of files of each other suffix in the subfolders.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    deeper: Path | None = None
    beside: int = 0
    others: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, root: Path) -> _Folders:
        found = cls()
        for entry in _visible(root):
            if not entry.is_dir():
                found.beside += _is_image(entry)
                continue
            found.files[entry.name] = []
            for file in _visible(entry):
                if _is_image(file):
                    found.files[entry.name].append(file)
                elif file.is_dir():
                    if any(_is_image(deeper) for deeper in _visible(file)):
                        found.deeper = found.deeper or file
                elif file.is_file():
                    found.others[file.suffix.lower() or file.name] += 1
        if not any(found.files.values()):
            found.files = {}
        return found

    def notes(self, root: Path) -> tuple[str, ...]:
        lines = []
        empty = [name for name, files in self.files.items() if not files]
        if empty:
            lines.append(f"{root}: no images in {_some(empty)}; the other labels count them")
        if self.beside:
            lines.append(f"{root}: {self.beside} images beside the subfolders are left out")
        if self.others:
            lines.append(
                f"{root}: {sum(self.others.values())} files are no images that are read "
                f"({_some(sorted(self.others))}) and are left out"
            )
        return tuple(lines)


def _visible(folder: Path) -> list[Path]:
    entries = [entry for entry in folder.iterdir() if not is_ignored(entry.name)]
    return sorted(entries, key=lambda entry: entry.name)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _check_numbers(root: Path, labels: dict[str, int]) -> None:
    """Refuse `1` beside `01`."""
    first: dict[int, str] = {}
    for name, label in labels.items():
        if label in first:
            raise DataError(f"{root}: the folders {first[label]} and {name} have the same number")
        first[label] = name


def _without_images(root: Path, found: _Folders) -> str:
    expected = f"{root}: expected a subfolder a class with images ({', '.join(SUFFIXES)})"
    if found.deeper:
        return f"{expected}, got images in {found.deeper}; give {found.deeper.parent}"
    if found.beside:
        return f"{expected}, got {found.beside} images without a subfolder; or give a .csv of them"
    if found.others:
        return f"{expected}, got {_some(sorted(found.others))}; convert them"
    return expected


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
