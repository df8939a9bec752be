"""The file of `--classes`: the names of a model's classes, in the model's order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flatguard.data.dataset import Dataset
from flatguard.data.reading import reading
from flatguard.errors import DataError, did_you_mean

_LARGEST_FILE = 1 << 26


def read_classes(file: Path) -> tuple[str, ...]:
    """The names, in the model's order.

    A text file has one name a line. A `.json` file has a list of names, `{"cat": 0, ...}` as
    torchvision's `class_to_idx`, or `{"0": "cat", ...}` or `{"0": ["n02123045", "cat"], ...}` as
    ImageNet's class index, whose first name counts.

    Raises:
        DataError: no such file, a name that is missing or given twice, or no names at all.
    """
    names = _read(file, 0)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"--classes: {file} has {twice[0]!r} twice")
    return tuple(names)


def read_texts(file: Path) -> tuple[str, ...]:
    """The words that stand for the classes in a text, as a zero-shot model reads them.

    They are the names, but for a `.json` file that has several names a class: the last one counts,
    as in `{"0": ["n02123045", "tabby cat"], ...}`. Two classes may have the same words.

    Raises:
        DataError: as `read_classes`.
    """
    return tuple(_read(file, -1))


def _read(file: Path, which: int) -> list[str]:
    """One name of each class; where a class has several, the one at this place."""
    with reading(file, "holds no names of classes"):
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(f"--classes: {file} is too large for a list of names")
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".json":
            names = _of_json(json.loads(text), file, which)
        else:
            names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise DataError(f"--classes: {file} holds no names; expected one a line")
    for number, name in enumerate(names):
        if not name:
            raise DataError(f"--classes: {file} has no name for class {number}")
    return names


def _of_json(held: Any, file: Path, which: int) -> list[str]:
    if isinstance(held, list):
        return [_name(item, file, which) for item in held]
    if isinstance(held, dict) and held:
        if all(isinstance(value, int) for value in held.values()):
            held = {str(number): name for name, number in held.items()}
        if sorted(held, key=lambda key: (len(key), key)) == [str(i) for i in range(len(held))]:
            return [_name(held[str(number)], file, which) for number in range(len(held))]
    raise DataError(
        f"--classes: {file}: expected a list of names, or names with the numbers from 0 on"
    )


def _name(item: Any, file: Path, which: int) -> str:
    name = item[which] if isinstance(item, list) and item else item
    if not isinstance(name, str):
        raise DataError(f"--classes: {file}: expected a name, got {item!r}")
    return name.strip()


def in_model_order(dataset: Dataset, names: tuple[str, ...], file: Path) -> Dataset:
    """The data set with the labels that its classes' names have in this list.

    Where the data set does not know its classes' names, its labels are the model's already.

    Raises:
        DataError: a class of the data set is not in the list.
    """
    if dataset.classes is None:
        return _InModelOrder(dataset, names, None)
    known = {name: number for number, name in enumerate(names)}
    lacking = [name for name in dataset.served_classes() if name not in known]
    if lacking:
        raise DataError(
            f"--classes: {file} has no {lacking[0]!r}, which {dataset.name} has"
            f"{did_you_mean(lacking[0], names, 1)}; expected every class of the data, in the "
            "model's order"
        )
    return _InModelOrder(dataset, names, [known.get(name, -1) for name in dataset.classes])


def in_order_of(dataset: Dataset, names: tuple[str, ...] | None) -> Dataset:
    """The data set with the labels that its classes have among the names that a model comes with.

    The data set itself where the model has no names, or not all of those that the data have.
    """
    served = dataset.served_classes()
    if not names or not served or dataset.classes is None or not set(served) <= set(names):
        return dataset
    known = {name: number for number, name in enumerate(names)}
    labels = [known.get(name, -1) for name in dataset.classes]
    return _InModelOrder(dataset, names, labels, "by the model's own names")


class _InModelOrder(Dataset):
    """Another data set whose labels are replaced by the model's."""

    _channels_first = True

    def __init__(
        self,
        whole: Dataset,
        names: tuple[str, ...],
        labels: list[int] | None,
        by: str = "by --classes",
    ):
        super().__init__(whole.name, len(whole))
        self.classes, self.listed, self._whole, self._by = names, len(names), whole, by
        self.notes = whole.notes if labels is None else (_mapping(whole, labels, by),)
        self._map = None if labels is None else torch.tensor(labels)

    def resized(self, size: tuple[int, int]) -> Dataset:
        return self._around(self._whole.resized(size))

    def in_grey(self) -> Dataset | None:
        grey = self._whole.in_grey()
        return None if grey is None else self._around(grey)

    def labels(self) -> Tensor | None:
        """The labels in the model's order; None where one is not known."""
        labels = self._whole.labels()
        if self._map is None or labels is None:
            return labels
        known = bool(((labels >= 0) & (labels < len(self._map))).all())
        return self._map[labels] if known else None

    def _around(self, whole: Dataset) -> Dataset:
        labels = None if self._map is None else self._map.tolist()
        return _InModelOrder(whole, self.classes or (), labels, self._by)

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        batch = self._whole.block(start, stop)
        if self._map is None:
            return batch.images, batch.labels
        for number, label in enumerate(batch.labels.tolist()):
            self._whole.check_label(label, len(self._map), start + number)
        return batch.images, self._map[batch.labels]


def mapping_note(names: dict[int, str], what: str) -> str:
    """A line with the labels of some classes: `classes: 0 = ant, 1 = bee (2 folders)`."""
    pairs = [f"{label} = {name}" for label, name in sorted(names.items())]
    shown = pairs if len(pairs) <= 12 else [*pairs[:6], "...", *pairs[-3:]]
    return f"classes: {', '.join(shown)} ({len(pairs)} {what})"


def _mapping(whole: Dataset, labels: list[int], by: str) -> str:
    assert whole.classes is not None
    served = set(whole.served_classes())
    pairs = zip(whole.classes, labels, strict=True)
    return mapping_note({label: name for name, label in pairs if name in served}, by)
