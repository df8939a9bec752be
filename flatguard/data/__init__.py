"""Images and labels from arrays, files, folders and known data sets: one source a file.

Internal, but for `load_dataset`: the public API is what flatguard exports and what
docs/reference/api.md lists.
"""

from __future__ import annotations

from pathlib import Path

from flatguard.data import array_files, cifar, demo, image_folder, imagenet
from flatguard.data.dataset import Dataset
from flatguard.data.image_files import check_preprocessing
from flatguard.environment.offline import keep_offline
from flatguard.errors import DataError

DEFAULT_DATA_DIR = Path("data")


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
            `images.npy,labels.npy` (memory-mapped); `.pt`; a folder with one subfolder per class.
        n_examples: how many samples will be used; the rest may not be read.
        data_dir: the folder of CIFAR's and ImageNet's files.
        preprocessing: one of RobustBench's names (`Res256Crop224`, ...), for image files.
    """
    keep_offline()
    check_preprocessing(preprocessing)  # before anything is read
    if name == "demo":
        return demo.load()
    if name in cifar.FILES:
        return cifar.load(name, n_examples, data_dir)
    if name == "imagenet":
        return imagenet.load(data_dir, preprocessing)
    path = Path(name)
    if "," in name and not path.exists():
        return array_files.load_npy_pair(name)
    if path.is_dir():
        return image_folder.load(path, preprocessing)
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
    """Whether a data set consists of image files, which `--preprocessing` resizes and crops."""
    return name == "imagenet" or Path(name).is_dir()
