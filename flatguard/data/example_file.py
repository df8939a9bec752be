"""Adversarial examples in a file, as attack libraries and their users save them. No code runs.

- AutoAttack, `examples/eval.py`: `{"adv_complete": images}`, or `(images, predictions)` in place of
  the images; with `--individual` one such value for each attack, by the attack's name.
- RobustBench, a submitted evaluation: one tensor of images.
- torchattacks, `Attack.save`: `adv_inputs` and `labels`, in uint8 with `save_type="int"`.
- Foolbox, saved by its user: `(raw, clipped, success)`, each a list where there are several radii.
- flatguard: `adversarial` of a run's blocks.

An archive of NumPy or safetensors has the same names.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.data.array_files import check_unpacked
from flatguard.data.arrays import as_tensor
from flatguard.data.reading import reading
from flatguard.data.values import ROUNDING, as_images, as_labels
from flatguard.environment.pickles import check_pickle, pickle_code
from flatguard.errors import DataError

_TORCH = (".pt", ".pth", ".bin")
SUFFIXES = (*_TORCH, ".npz", ".npy", ".safetensors")
"""The files that are read."""

_AUTOATTACK = frozenset({"apgd-ce", "apgd-t", "apgd-dlr", "fab", "fab-t", "square"})
_IMAGES = (
    "adv_complete", "adv_inputs", "adversarial", "adv", "x_adv", "adv_x", "adv_images",
    "adv_examples", "adversarial_examples", "clipped", "examples", "images", "x", "x_test", "data",
    "arr_0",
)  # fmt: skip
"""The names of examples, the first that is there counts: a file may hold clean images, too."""
_LABELS = ("labels", "label", "y", "y_true", "y_test", "targets")
_INDICES = ("indices", "index", "idx", "sample", "samples", "ids")
_SAVED_BY = {
    "adv_complete": "AutoAttack", "adv_inputs": "torchattacks", "clipped": "Foolbox",
}  # fmt: skip
_ROUNDING = {"uint8": 1 / 255, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""By how much a type moves values of [0, 1]; torchattacks truncates to uint8."""
_USUAL_RANGE = (-0.5, 1.5)
"""Pixels of [0, 1] that an attack moves without clipping stay within; other units do not."""


@dataclass(frozen=True)
class StoredExamples:
    """The examples of a file. Nothing is clipped, and values may be outside [0, 1] or not finite.

    Attributes:
        images: `(m, channels, height, width)` float32.
        order: `(m,)`, the position of each in its set; where the file keeps the data's order, it is
            the number of its image.
        sets: the number of sets, such as attacks or radii, that have examples of the same images.
        labels: `(m,)`, the true labels that the file holds; None if it holds none.
        indices: `(m,)`, the numbers of their images that the file holds; None if it holds none.
        kind: what was read, in words.
        stored_as: the type of the values in the file, such as `uint8`.
        rounding: by how much that type may have moved a value; 0 for float32.
    """

    images: Tensor
    order: Tensor
    sets: int
    labels: Tensor | None
    indices: Tensor | None
    kind: str
    stored_as: str
    rounding: float

    def __len__(self) -> int:
        return len(self.images)


def read_examples(path: Path) -> StoredExamples:
    """The examples of a file.

    Raises:
        DataError: there is no such file, it asks for code, or it holds no examples; values of
            another unit than [0, 1], with what to do.
    """
    with reading(path, "holds no plain arrays"):
        held = _held(path)
        if isinstance(held, Mapping):
            found = _of_mapping(held, path)
        else:
            found = _Found(_sets(held, path.name, path), _kind_of(held))
        return _stored(found, path)


def read_indices(path: Path) -> Tensor:
    """The whole numbers of a file: an array, or a text with one a line.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    with reading(path, "holds no whole numbers"):
        if path.suffix in (".txt", ".csv"):
            lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
            try:
                return torch.tensor([int(line) for line in lines if line], dtype=torch.int64)
            except ValueError as error:
                raise DataError(f"{path}: expected one whole number a line; {error}") from error
        held = _held(path)
        if isinstance(held, Mapping):
            names = [name for name in _INDICES if name in held] or list(held)
            if len(names) != 1:
                raise DataError(f"{path}: expected one array of indices, got {', '.join(names)}")
            held = held[names[0]]
        return as_labels(as_tensor(held, str(path)), str(path), 0)


@dataclass(frozen=True)
class _Found:
    """The arrays of a file: sets of images, who saved them, labels and indices."""

    sets: list[Any]
    kind: str
    labels: Any = None
    indices: Any = None


def _held(path: Path) -> Any:
    """What the file holds: an array, a mapping, a tuple or a list."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a file of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"no file {path}")
    if path.suffix in _TORCH:
        check_pickle(path)
        try:
            with pickle_code(False):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise DataError(
                f"{path} holds more than tensors, and loading that may run code: save a tensor, or "
                "a dict of tensors"
            ) from error
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    check_unpacked(path)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _of_mapping(held: Mapping[Any, Any], path: Path) -> _Found:
    names = [str(name) for name in held]
    if names and set(names) <= _AUTOATTACK:
        sets = [part for name in names for part in _sets(held[name], name, path)]
        return _Found(sets, f"AutoAttack, {', '.join(names)}")
    chosen = next((name for name in _IMAGES if name in held), None)
    if chosen is None:
        images = [name for name in names if _is_image_like(held[name])]
        if len(images) != 1:
            raise DataError(
                f"{path}: expected examples under a name such as adv_complete, adv_inputs, "
                f"adversarial or x_adv, got {', '.join(names[:8]) or 'nothing'}"
            )
        chosen = images[0]
    labels = next((held[name] for name in _LABELS if name in held), None)
    indices = next((held[name] for name in _INDICES if name in held), None)
    sets = _sets(held[chosen], chosen, path, several=chosen == "clipped")
    who = _SAVED_BY.get(chosen)
    return _Found(sets, f"{who}, {chosen}" if who else chosen, labels, indices)


def _kind_of(held: Any) -> str:
    """Who saves a value that is no mapping, in words."""
    if hasattr(held, "shape"):
        return "one array"
    return "Foolbox, clipped" if len(held) == 3 and _is_success(held[2]) else "a pair"


def _is_image_like(value: Any) -> bool:
    return len(getattr(value, "shape", ())) >= 3


def _is_column(value: Any) -> bool:
    return hasattr(value, "shape") and len(value.shape) == 1


def _sets(value: Any, name: str, path: Path, several: bool = False) -> list[Any]:
    """The sets of examples in a value. Each has its images in the same order.

    `several`: a list holds sets, as Foolbox's of several radii, and not batches.
    """
    if _is_image_like(value):
        return list(value) if np.ndim(value) == 5 else [value]
    parts = list(value) if isinstance(value, (tuple, list)) else []
    if len(parts) == 3 and _is_success(parts[2]):
        return _sets(parts[1], "clipped", path, several=True)
    if len(parts) == 2 and _is_image_like(parts[0]) and _is_column(parts[1]):
        return [parts[0]]  # the second are AutoAttack's predictions, or labels: not to be told
    shapes = {tuple(part.shape) for part in parts if _is_image_like(part)}
    if len(shapes) == 1 and all(_is_image_like(part) for part in parts):
        if len(parts) == 1 or several:
            return parts
        if np.ndim(parts[0]) == 3:
            return [torch.stack([as_tensor(part, str(path)) for part in parts])]
    if len(parts) > 1 and shapes:
        raise DataError(
            f"{path}: a list of {len(parts)} arrays may be batches of one set, or a set for each "
            "radius; save torch.cat(...) of batches, or a dict with the sets under `clipped`"
        )
    got = type(value).__name__ if not parts else f"{type(value).__name__} of {len(parts)}"
    raise DataError(f"{path}: expected images in {name}, got {got}")


def _is_success(value: Any) -> bool:
    """Whether this is Foolbox's third result: which examples succeeded."""
    kind = getattr(value, "dtype", None)
    return kind is torch.bool or (isinstance(value, np.ndarray) and value.dtype == bool)


def _stored(found: _Found, path: Path) -> StoredExamples:
    name = str(path)
    parts = [as_tensor(part, name) for part in found.sets]
    if not sum(len(part) for part in parts):
        raise DataError(f"{path} holds no examples")
    if len({tuple(part.shape[1:]) for part in parts}) > 1:
        raise DataError(f"{path}: its sets have images of different sizes")
    images = torch.cat([as_images(part, name) for part in parts])
    _check_unit(images, path)
    each = [
        _column(values, what, parts, path)
        for values, what in ((found.labels, "labels"), (found.indices, "indices"))
    ]
    kind = str(parts[0].dtype).removeprefix("torch.")
    return StoredExamples(
        images=_rounded(images),
        order=torch.cat([torch.arange(len(part)) for part in parts]),
        sets=len(parts),
        labels=each[0],
        indices=each[1],
        kind=found.kind,
        stored_as=kind,
        rounding=_ROUNDING.get(kind, 0.0),
    )


def _column(values: Any, what: str, parts: Sequence[Tensor], path: Path) -> Tensor | None:
    """Labels or indices, once for each set."""
    if values is None:
        return None
    column = as_labels(as_tensor(values, f"{path}, {what}"), f"{path}, {what}", 0)
    if any(len(part) != len(column) for part in parts):
        raise DataError(f"{path}: {len(parts[0])} examples but {len(column)} {what}")
    return column.repeat(len(parts))


def _check_unit(images: Tensor, path: Path) -> None:
    """Refuse examples most of which are not in the pixels of [0, 1].

    Raises:
        DataError: with what to do: they are normalised, or from 0 to 255.
    """
    rows = images.flatten(1)
    finite = rows.isfinite().all(dim=1)
    if not bool(finite.any()):
        raise DataError(f"{path}: no example is finite; expected values in [0, 1]")
    low, high = rows[finite].amin(dim=1), rows[finite].amax(dim=1)
    other = (low < _USUAL_RANGE[0]) | (high > _USUAL_RANGE[1])
    if 2 * int(other.sum()) <= len(other):
        return
    lowest, highest = float(low.min()), float(high.max())
    if lowest >= _USUAL_RANGE[0]:
        advice = "divide them by 255"
    elif lowest >= -1.01 and highest <= 1.01:
        advice = "they seem to be in [-1, 1]: save (x + 1) / 2"
    else:
        advice = "they seem to be normalised: save x * std + mean"
    raise DataError(
        f"{path}: expected examples in [0, 1] (or uint8), got values from {lowest:.4g} to "
        f"{highest:.4g}, outside in {int(other.sum())} of {len(other)} examples; {advice}"
    )


def _rounded(images: Tensor) -> Tensor:
    """The same without the rounding errors that leave [0, 1], as those of clean images."""
    low, high = (images < 0) & (images >= -ROUNDING), (images > 1) & (images <= 1 + ROUNDING)
    return images.masked_fill(low, 0.0).masked_fill(high, 1.0)
