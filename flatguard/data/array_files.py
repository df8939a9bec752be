"""Images and labels in array files: `.npz`, two `.npy`, or `.pt`. Loading runs no code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Dataset
from flatguard.data.reading import reading
from flatguard.environment.pickles import check_pickle, pickle_code
from flatguard.errors import DataError

_IMAGE_KEYS = ("images", "x", "x_test", "data", "image")
_LABEL_KEYS = ("labels", "y", "y_test", "targets", "label")

FREE, RATIO = 1 << 30, 100
"""An archive may unpack to FREE bytes plus RATIO times its own size."""


def load_npz(path: Path) -> Dataset:
    """`images` and `labels` of an archive, which is unpacked into memory as a whole."""
    with reading(path):
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is damaged, or no .npz archive")
        check_unpacked(path)
        archive = np.load(path, allow_pickle=False)
        return _of_mapping(archive, archive.files, path)


def check_unpacked(path: Path) -> None:
    """Refuse an archive by its stated sizes; NumPy reads at most these from each entry."""
    with zipfile.ZipFile(path) as archive:
        needed = sum(entry.file_size for entry in archive.infolist())
    if needed > FREE + RATIO * path.stat().st_size:
        raise DataError(
            f"{path} would unpack to {needed / 2**30:,.1f} GiB, over {RATIO} times its size; give "
            "images.npy,labels.npy, which are read block by block"
        )


def load_npy_pair(name: str) -> Dataset:
    """`images.npy,labels.npy`, memory-mapped; the paths themselves may contain commas."""
    parts = _pair(name)
    arrays = []
    for part in parts:
        with reading(part):
            arrays.append(_Mapped(part))
    return ArrayDataset(arrays[0], arrays[1], parts[0].name)


def _pair(name: str) -> tuple[Path, Path]:
    """The two files around a comma; of several commas, the one where both files exist."""
    commas = [at for at, letter in enumerate(name) if letter == ","]
    pairs = [(Path(name[:at]), Path(name[at + 1 :])) for at in commas]
    named = [pair for pair in pairs if all(part.suffix == ".npy" for part in pair)]
    found = [pair for pair in named if all(part.is_file() for part in pair)]
    if len(found) > 1:
        raise DataError(f"--dataset: {name!r} splits into two files in several ways; rename one")
    if not found and not (len(commas) == len(named) == 1):
        raise DataError(
            f"--dataset: expected images.npy,labels.npy, got {name!r}, which is neither one "
            "file nor two"
        )
    return found[0] if found else named[0]


class _Mapped:
    """A `.npy` that is mapped again for every slice, so that no page stays in memory."""

    def __init__(self, path: Path):
        self._path = path
        self.shape, self.ndim = self._opened().shape, self._opened().ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, part: slice) -> np.ndarray:
        with reading(self._path):
            return np.array(self._opened()[part])

    def _opened(self) -> np.ndarray:
        found: np.ndarray = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return found


def load_pt(path: Path) -> Dataset:
    """Tensors in a pair or a dict."""
    with reading(path):
        check_pickle(path)
        with pickle_code(False):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if isinstance(held, Mapping):
            return _of_mapping(held, [str(key) for key in held], path)
        if isinstance(held, (tuple, list)) and len(held) == 2:
            return ArrayDataset(held[0], held[1], path.name)
        raise DataError(f"{path}: expected a dict or a pair of images and labels")


def _of_mapping(held: Mapping[str, Any], keys: list[str], path: Path) -> Dataset:
    images, labels = _key(keys, _IMAGE_KEYS, path), _key(keys, _LABEL_KEYS, path)
    return ArrayDataset(held[images], held[labels], path.name)


def _key(keys: list[str], wanted: tuple[str, ...], path: Path) -> str:
    for key in wanted:
        if key in keys:
            return key
    raise DataError(f"{path}: expected an array named {' or '.join(wanted[:3])}, got {keys}")
