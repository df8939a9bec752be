"""Image files, which are opened one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flatguard.data.pictures import PictureDataset, as_seen, open_picture, transform_of

IGNORED = frozenset({
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin",
    "system volume information", "lost+found", "@eadir", "icon\r",
})  # fmt: skip
"""Files and folders, in lower case, that operating systems and tools leave among images."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or left by an operating system or a tool."""
    return name.startswith((".", "~$")) or name.lower() in IGNORED


class ImageFiles(PictureDataset):
    """Images that are opened one by one.

    Args:
        files: in the order of the samples.
        labels: one for each file.
        preprocessing: steps, one of RobustBench's names, or None.
        name: of the data set.
        seen: turns an opened picture into the one that is served; RobustBench's own data sets
            are read as RobustBench reads them.
    """

    _channels_first = True

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        preprocessing: str | None,
        name: str,
        seen: Callable[[Any, str], Any] = as_seen,
    ) -> None:
        super().__init__(name, len(files))
        self._files, self._labels, self._seen = files, labels, seen
        self._transform = None if preprocessing is None else transform_of(preprocessing)

    def served_classes(self) -> tuple[str, ...]:
        """The names of the classes that have images."""
        names = self.classes or ()
        return tuple(names[label] for label in sorted(set(self._labels)) if 0 <= label < len(names))

    def labels(self) -> Tensor | None:
        """The labels of all files."""
        return torch.tensor(self._labels)

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images = [self._opened(file) for file in self._files[start:stop]]
        return self._stacked(images, start), torch.tensor(self._labels[start:stop])

    def _opened(self, file: Path) -> Tensor:
        return self._tensor_of(self._seen(open_picture(file), str(file)), str(file))
