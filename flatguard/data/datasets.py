"""Images and labels, served in blocks; nothing assumes that a data set fits in memory.

Every source yields float32 NCHW images in [0, 1] and int64 labels, in a fixed order.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.environment.network import bounded_sockets, unreachable
from flatguard.environment.offline import keep_offline
from flatguard.environment.requirements import needed
from flatguard.environment.torch_state import kept_state
from flatguard.errors import (
    DataError,
    EnvironmentProblem,
    FlatguardError,
    UntrustedCodeError,
    check_readable,
    one_line,
    refused,
)

DEFAULT_DATA_DIR = Path("data")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""What an image may be, whatever its name says: Pillow runs other programs for some formats."""

LARGEST_IMAGE = 1 << 26
"""Values of one image: 4,700 pixels square in colour."""

CIFAR = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
}
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR_HOST = "www.cs.toronto.edu"


@dataclass(frozen=True)
class Batch:
    """`images` is `(n, channels, height, width)` float32 in [0, 1]; `labels` is `(n,)` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(ABC):
    """An ordered set of labelled images. Subclasses serve raw slices; the checks are here.

    Attributes:
        name: as it is shown.
        classes: their names in the order of the labels; None where they are not known.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, name: str, length: int):
        if length == 0:
            raise DataError(f"{name} holds no images")
        self.name = name
        self._length = length

    def __len__(self) -> int:
        return self._length

    def block(self, start: int, stop: int) -> Batch:
        """Samples `start` to `stop`, checked: four dimensions, finite, in [0, 1].

        Raises:
            DataError: with the first offence and its sample's number.
        """
        with kept_state():
            images, labels = self._raw(start, min(stop, len(self)))
        batch = Batch(_as_images(images, self.name), _as_labels(labels, self.name))
        if batch.images.ndim != 4 or batch.images.shape[1] > 4:
            raise DataError(
                f"{self.name}: expected images (n, channels, height, width) or "
                f"(n, height, width, channels), got {tuple(images.shape)}"
            )
        bad = ~((batch.images >= 0) & (batch.images <= 1)).flatten(1).all(dim=1)
        if bad.any():
            where = int(bad.nonzero()[0])
            low, high = batch.images[where].min().item(), batch.images[where].max().item()
            mend = "undo the normalisation in the data and give --mean and --std to the model"
            if low >= 0 and high > 2:
                mend = "divide by 255, or store uint8"
            raise DataError(
                f"{self.name}: expected images in [0, 1] (or uint8), got values from {low:.4g} to "
                f"{high:.4g} in sample {start + where}; {mend}"
            )
        return batch

    @abstractmethod
    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images of any layout that `_as_images` knows, and labels."""


def check_labels(batch: Batch, num_classes: int, name: str, start: int = 0) -> None:
    """Refuse labels outside 0 .. num_classes - 1."""
    bad = (batch.labels < 0) | (batch.labels >= num_classes)
    if bad.any():
        where = int(bad.nonzero()[0])
        raise DataError(
            f"{name}: expected labels from 0 to {num_classes - 1}, as the model has {num_classes} "
            f"classes; got {int(batch.labels[where])} for sample {start + where}"
        )


def blocks(dataset: Dataset, count: int, size: int) -> Iterator[tuple[int, Batch]]:
    """The first `count` samples in blocks of `size`, each with its first sample's number."""
    for start in range(0, count, size):
        yield start, dataset.block(start, min(start + size, count))


class DataHash:
    """SHA-256 over images (float32 NCHW bytes) and labels (int64) as they are served."""

    def __init__(self) -> None:
        self._images, self._labels = hashlib.sha256(), hashlib.sha256()

    def update(self, batch: Batch) -> None:
        """Take the next block."""
        self._images.update(batch.images.numpy().tobytes())
        self._labels.update(batch.labels.numpy().tobytes())

    def hexdigest(self) -> str:
        """The hash so far; the same for any block size."""
        return hashlib.sha256(self._images.digest() + self._labels.digest()).hexdigest()


def _as_images(raw: Tensor, name: str) -> Tensor:
    if raw.dtype == torch.uint8:
        images = raw.float() / 255.0
    elif raw.is_floating_point():
        images = raw.float()
    else:
        raise DataError(f"{name}: expected uint8 or floating-point images, got {raw.dtype}")
    if images.ndim == 3:  # one channel, left out
        images = images.unsqueeze(1)
    if images.ndim == 4 and images.shape[1] not in (1, 3, 4) and images.shape[-1] in (1, 3, 4):
        images = images.permute(0, 3, 1, 2)
    # Attacks need NCHW-contiguous inputs: AutoAttack calls .view on the gradient.
    return images.contiguous()


def _as_labels(raw: Tensor, name: str) -> Tensor:
    if raw.dtype == torch.bool or raw.is_complex():
        raise DataError(f"{name}: expected integer labels, got {raw.dtype}")
    if raw.is_floating_point() and not bool((raw == raw.round()).all()):
        raise DataError(f"{name}: expected integer labels, got {raw[raw != raw.round()][0].item()}")
    return raw.long()


class ArrayDataset(Dataset):
    """Arrays or tensors, possibly memory-mapped; a block is read when it is asked for."""

    def __init__(self, images: Any, labels: Any, name: str):
        if np.ndim(images) < 3 or np.ndim(labels) < 1:
            raise DataError(
                f"{name}: expected images (n, ...) and labels (n,), got shapes "
                f"{np.shape(images)} and {np.shape(labels)}"
            )
        if len(images) != len(labels):
            raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
        if np.ndim(labels) != 1 and tuple(labels.shape[1:]) != (1,):
            raise DataError(f"{name}: expected one label an image, got {tuple(labels.shape)}")
        if math.prod(np.shape(images)[1:]) > LARGEST_IMAGE:
            raise DataError(f"{name}: images of {tuple(np.shape(images)[1:])} are too large")
        super().__init__(name, len(labels))
        self._images, self._labels = images, labels

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images, labels = self._images[start:stop], self._labels[start:stop]
        return _tensor(images, self.name), _tensor(labels, self.name).reshape(-1)


class Subset(Dataset):
    """Some samples of another data set, in any order."""

    def __init__(self, whole: Dataset, numbers: Sequence[int], name: str):
        super().__init__(name, len(numbers))
        self.classes = whole.classes
        self._whole, self._numbers = whole, [int(number) for number in numbers]

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        parts = [self._whole.block(i, i + 1) for i in self._numbers[start:stop]]
        return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


class ItemDataset(Dataset):
    """Images that are opened one by one: a folder, ImageNet's validation set."""

    def __init__(self, get: Callable[[int], tuple[Tensor, int]], length: int, name: str):
        super().__init__(name, length)
        self._get = get

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        items = [self._get(i) for i in range(start, stop)]
        shapes = {tuple(image.shape) for image, _ in items}
        if len(shapes) > 1:
            raise DataError(
                f"{self.name}: images of different sizes, such as {sorted(shapes)[:2]}; "
                "name a --preprocessing that crops them"
            )
        return torch.stack([i for i, _ in items]), torch.tensor([label for _, label in items])


def _tensor(part: Any, name: str) -> Tensor:
    if isinstance(part, Tensor):
        plain = part.detach().cpu()
        return plain.clone() if plain.is_inference() else plain  # autograd takes none of these
    array = np.asarray(part)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got {array.dtype}")
    native = array.astype(array.dtype.newbyteorder("="))
    # torch before 2.3 knows no uint16 to uint64; labels of that kind fit int64.
    return torch.from_numpy(
        native.astype(np.int64)
        if native.dtype.kind == "u" and native.dtype.itemsize > 1
        else native
    )


def load_dataset(
    name: str,
    *,
    n_examples: int | None = None,
    data_dir: Path = DEFAULT_DATA_DIR,
    preprocessing: str | None = None,
) -> Dataset:
    """Open a data set.

    Args:
        name: `demo`, `cifar10`, `cifar100`, `imagenet`; or a path: `.npz`; two `.npy` as
            `images.npy,labels.npy` (memory-mapped); `.pt`; a folder with a subfolder a class.
        n_examples: how many samples will be asked for; the rest may not be read.
        data_dir: where CIFAR's and ImageNet's files are.
        preprocessing: a name of RobustBench's (`Res256Crop224`, ...), for files of images.
    """
    keep_offline()
    if preprocessing is not None:
        _transform(preprocessing)  # refuses an unknown name before anything is read
    if name == "demo":
        served = _folder_of(demo_images(), _label_in_name, None, "demo")
        served.classes = CIFAR10_CLASSES
        return served
    if name in CIFAR:
        return _cifar(name, n_examples, data_dir)
    if name == "imagenet":
        return _imagenet(data_dir, preprocessing)
    from flatguard.data import array_files

    path = Path(name)
    if "," in name and not path.exists():
        return array_files.load_npy_pair(name)
    if path.is_dir():
        return _class_folders(path, preprocessing)
    if not path.is_file():
        raise DataError(
            f"no data set {name!r}: expected demo, cifar10, cifar100, imagenet, or the path of a "
            ".npz, .pt, images.npy,labels.npy or a folder of images"
        )
    if path.suffix == ".npz":
        return array_files.load_npz(path)
    if path.suffix == ".pt":
        return array_files.load_pt(path)
    raise DataError(f"{path}: expected .npz, .pt, images.npy,labels.npy or a folder")


def uses_preprocessing(name: str) -> bool:
    """Whether a data set is files of images, which `--preprocessing` resizes and crops."""
    return name == "imagenet" or Path(name).is_dir()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a file of data is read becomes one line that names it."""
    if path.is_file():
        check_readable(path, DataError)
    try:
        yield
    except DataError:
        raise
    except UntrustedCodeError as error:  # nobody may allow it to data
        raise DataError(f"{path} is damaged, or holds no plain arrays: it asks for code") from error
    except FlatguardError as error:
        raise DataError(str(error)) from error
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except Exception as error:  # zipfile, pickle, numpy and torch raise their own
        if refused(error):
            raise DataError(f"{path} cannot be read: {one_line(error)}") from error
        what = (
            "" if "allow_pickle" in str(error) or "weights_only" in str(error) else one_line(error)
        )
        raise DataError(f"{path} is damaged, or holds no plain arrays {what}".rstrip()) from error


def _class_folders(root: Path, preprocessing: str | None) -> Dataset:
    with reading(root):
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
        files = [
            (file, folder)
            for folder in folders
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
        ]
    if not files:
        raise DataError(f"{root}: expected a subfolder a class with images ({IMAGE_SUFFIXES[0]})")
    # Folders that are numbers are labels; otherwise the sorted names are counted.
    numeric = all(folder.name.isdecimal() for folder in folders)
    if numeric and any(len(folder.name) > 9 for folder in folders):
        raise DataError(f"{root}: expected folders named by a label, or by a class")
    label = {f: int(f.name) if numeric else i for i, f in enumerate(folders)}
    labels = {file: label[folder] for file, folder in files}
    served = _folder_of([f for f, _ in files], labels.__getitem__, preprocessing, root.name)
    served.classes = None if numeric else tuple(folder.name for folder in folders)
    return served


def _label_in_name(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def _folder_of(
    files: list[Path], label: Callable[[Path], int], preprocessing: str | None, name: str
) -> Dataset:
    transform = _transform(preprocessing)

    def get(index: int) -> tuple[Tensor, int]:
        return transform(_opened(files[index])), label(files[index])

    return ItemDataset(get, len(files), name)


def _opened(file: Path) -> Any:
    """An image in colour, after its size was looked at."""
    from PIL import Image

    with reading(file), Image.open(file, formats=IMAGE_FORMATS) as image:
        if 3 * image.width * image.height > LARGEST_IMAGE:
            raise DataError(f"{file}: {image.width} x {image.height} pixels are too many")
        return image.convert("RGB")


def _transform(preprocessing: str | None) -> Callable[[Any], Tensor]:
    if preprocessing is None:
        return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    with needed("robustbench", "robustbench", "--preprocessing"):
        from robustbench.data import PREPROCESSINGS

    if preprocessing not in PREPROCESSINGS:
        raise DataError(
            f"unknown preprocessing {preprocessing!r}; expected one of "
            f"{', '.join(str(p) for p in PREPROCESSINGS if p)}"
        )
    transform: Callable[[Any], Tensor] = PREPROCESSINGS[preprocessing]
    return transform


def _cifar(name: str, n_examples: int | None, data_dir: Path) -> Dataset:
    folder, archive = CIFAR[name]
    if not (data_dir / folder).is_dir() and (why := unreachable(CIFAR_HOST)):
        raise EnvironmentProblem(
            f"no {name} at {data_dir / folder}, and {why}; unpack {archive} into {data_dir}/, or "
            "name another folder with --data-dir, or give --dataset a .npz of images and labels"
        )
    with needed("robustbench", "robustbench", f"--dataset {name}"):
        from robustbench.data import load_cifar10, load_cifar100

    load = load_cifar10 if name == "cifar10" else load_cifar100
    try:
        with contextlib.redirect_stdout(sys.stderr), bounded_sockets(60.0):
            images, labels = load(n_examples, str(data_dir))
    except Exception as error:  # torchvision raises RuntimeError, OSError, pickle's, ...
        raise DataError(f"{name} in {data_dir} cannot be read: {one_line(error)}") from error
    served = ArrayDataset(images, labels, name)
    served.classes = CIFAR10_CLASSES if name == "cifar10" else None
    return served


def _imagenet(data_dir: Path, preprocessing: str | None) -> Dataset:
    folder = data_dir / "val"
    if not folder.is_dir():
        raise EnvironmentProblem(
            f"no ImageNet at {folder}; put the validation images there in one subfolder a class "
            "(n01440764, ...), or name the folder above val with --data-dir"
        )
    with needed("robustbench", "robustbench", "--dataset imagenet"):
        from robustbench.loaders import CustomImageFolder

    try:
        # RobustBench's own order of its 5,000 images.
        listed = CustomImageFolder(str(folder), _transform(preprocessing or "Res256Crop224"))
    except Exception as error:
        raise DataError(f"{folder} cannot be read: {one_line(error)}") from error

    def get(index: int) -> tuple[Tensor, int]:
        file, label = listed.samples[index]
        return listed.transform(_opened(Path(file))), int(label)

    return ItemDataset(get, len(listed), "imagenet")


def demo_images() -> list[Path]:
    """The CIFAR-10 samples of the foolbox package, in their order; the label is in the name."""
    folder = importlib.resources.files("foolbox") / "data"
    with importlib.resources.as_file(folder) as path:
        return sorted(path.glob("cifar10_*.png"))
