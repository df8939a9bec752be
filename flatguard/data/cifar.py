"""CIFAR-10 and CIFAR-100, from their published files or downloaded by RobustBench."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Dataset
from flatguard.environment.network import bounded_sockets, unreachable
from flatguard.environment.requirements import needed
from flatguard.errors import DataError, EnvironmentProblem, one_line

FILES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
}
"""The folder of each data set, and the archive that contains it."""

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_HOST = "www.cs.toronto.edu"


def load(name: str, n_examples: int | None, data_dir: Path) -> Dataset:
    """The first `n_examples` of the test set; RobustBench downloads it if it is not there."""
    folder, archive = FILES[name]
    if not (data_dir / folder).is_dir() and (why := unreachable(_HOST)):
        raise EnvironmentProblem(
            f"no {name} at {data_dir / folder}, and {why}; unpack {archive} into {data_dir}/, or "
            "name another folder with --data-dir, or give --dataset a .npz of images and labels"
        )
    with needed("robustbench", "robustbench", f"--dataset {name}"):
        from robustbench.data import load_cifar10, load_cifar100

    read = load_cifar10 if name == "cifar10" else load_cifar100
    try:
        with redirect_stdout(sys.stderr), bounded_sockets(60.0):
            images, labels = read(n_examples, str(data_dir))
    except Exception as error:  # torchvision raises RuntimeError, OSError, pickle's, ...
        raise DataError(f"{name} in {data_dir} cannot be read: {one_line(error)}") from error
    served = ArrayDataset(images, labels, name)
    served.classes = CIFAR10_CLASSES if name == "cifar10" else None
    return served
