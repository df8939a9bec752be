"""Images and labels from arrays, files, folders and known data sets: one source a file.

Internal, but for `load_dataset`: the public API is what flatguard exports and what
docs/reference/api.md lists.
"""

from __future__ import annotations

from pathlib import Path

from flatguard.data import array_files, cifar, demo, image_folder, image_list, imagenet
from flatguard.data.class_names import in_model_order, read_classes
from flatguard.data.dataset import Dataset
from flatguard.data.pictures import check_preprocessing
from flatguard.data.sampling import Shuffled
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
            `images.npy,labels.npy` (memory-mapped); `.pt`; a folder with one subfolder per class;
            `.csv` or `.tsv` of paths and labels.
        n_examples: how many samples will be used; the rest may not be read.
        data_dir: the folder of CIFAR's and ImageNet's files.
        preprocessing: for image files: steps such as `resize=256:bicubic,crop=224`, or one of
            RobustBench's names (`Res256Crop224`, ...).
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
            ".npz, .pt, .csv, images.npy,labels.npy or a folder of images"
        )
    if path.suffix == ".npz":
        return array_files.load_npz(path)
    if path.suffix == ".pt":
        return array_files.load_pt(path)
    if path.suffix.lower() in image_list.LISTS:
        return image_list.load(path, preprocessing)
    raise DataError(f"{path}: expected .npz, .pt, .csv, images.npy,labels.npy or a folder")


def arranged(
    dataset: Dataset,
    size: tuple[int, int] | None,
    classes: Path | None,
    shuffled_by: int | None = None,
) -> Dataset:
    """The data set with its pictures resized, its labels in the order of a `--classes` file, and
    its samples in the order that a seed draws.

    Raises:
        DataError: it has no pictures, or a class that the file does not have.
    """
    if size is not None:
        dataset = dataset.resized(size)
    if classes is not None:
        dataset = in_model_order(dataset, read_classes(classes), classes)
    return dataset if shuffled_by is None else Shuffled(dataset, shuffled_by)


def uses_preprocessing(name: str) -> bool:
    """Whether a data set consists of image files, which `--preprocessing` resizes and crops."""
    path = Path(name)
    is_list = path.suffix.lower() in image_list.LISTS and path.is_file()
    return name == "imagenet" or path.is_dir() or is_list
