"""Images and labels in files of arrays: `.npz`, two `.npy`, `.pt`; none of them runs code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Dataset
from flatguard.data.reading import reading
from flatguard.environment.pickles import check_pickle, pickle_code
from flatguard.errors import DataError

IMAGE_KEYS = ("images", "x", "x_test", "data", "image")
LABEL_KEYS = ("labels", "y", "y_test", "targets", "label")

FREE, RATIO = 1 << 30, 100
"""Bytes that an archive may unpack to, and how many times its size beyond that."""


def load_npz(path: Path) -> Dataset:
    """`images` and `labels` of an archive, which are unpacked as a whole."""
    with reading(path):
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is damaged, or no .npz archive")
        _check_unpacked(path)
        archive = np.load(path, allow_pickle=False)
        keys = archive.files
        return ArrayDataset(
            archive[_key(keys, IMAGE_KEYS, path)], archive[_key(keys, LABEL_KEYS, path)], path.name
        )


def _check_unpacked(path: Path) -> None:
    """NumPy reads no more of an entry than the archive says it has."""
    with zipfile.ZipFile(path) as archive:
        needed = sum(entry.file_size for entry in archive.infolist())
    if needed > FREE + RATIO * path.stat().st_size:
        raise DataError(
            f"{path} would unpack to {needed / 2**30:,.1f} GiB, over {RATIO} times its size; give "
            "images.npy,labels.npy, which are read block by block"
        )


def load_npy_pair(name: str) -> Dataset:
    """`images.npy,labels.npy`, memory-mapped; their paths may hold commas of their own."""
    parts = _pair(name)
    arrays = []
    for part in parts:
        with reading(part):
            arrays.append(_Mapped(part))
    return ArrayDataset(arrays[0], arrays[1], parts[0].name)


def _pair(name: str) -> tuple[Path, Path]:
    """The two files that a comma parts: where there are several commas, the one that finds both."""
    commas = [at for at, letter in enumerate(name) if letter == ","]
    pairs = [(Path(name[:at]), Path(name[at + 1 :])) for at in commas]
    named = [pair for pair in pairs if all(part.suffix == ".npy" for part in pair)]
    found = [pair for pair in named if all(part.is_file() for part in pair)]
    if len(found) > 1:
        raise DataError(f"--dataset: {name!r} are two files in more than one way; rename one")
    if not found and not (len(commas) == len(named) == 1):
        raise DataError(
            f"--dataset: expected images.npy,labels.npy, got {name!r}, which is neither a file nor "
            "two of them"
        )
    return found[0] if found else named[0]


class _Mapped:
    """A `.npy` that is mapped anew for every slice, so that nothing read stays in memory."""

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
    """A pair, or a dict, of tensors."""
    with reading(path):
        check_pickle(path)
        with pickle_code(False):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if isinstance(held, Mapping):
            keys = [str(key) for key in held]
            images = held[_key(keys, IMAGE_KEYS, path)]
            labels = held[_key(keys, LABEL_KEYS, path)]
        elif isinstance(held, (tuple, list)) and len(held) == 2:
            images, labels = held
        else:
            raise DataError(f"{path}: expected a dict or a pair of images and labels")
        return ArrayDataset(images, labels, path.name)


def _key(keys: list[str], wanted: tuple[str, ...], path: Path) -> str:
    for key in wanted:
        if key in keys:
            return key
    raise DataError(f"{path}: expected an array named {' or '.join(wanted[:3])}, got {keys}")
