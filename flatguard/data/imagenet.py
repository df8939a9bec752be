"""ImageNet's validation set: the 5,000 images that RobustBench evaluates, in its order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flatguard.data.dataset import Dataset
from flatguard.data.image_files import ImageFiles
from flatguard.environment.requirements import needed
from flatguard.errors import DataError, EnvironmentProblem, one_line


def load(data_dir: Path, preprocessing: str | None) -> Dataset:
    """The images in `val/`; without a preprocessing, `Res256Crop224`."""
    folder = data_dir / "val"
    if not folder.is_dir():
        raise EnvironmentProblem(
            f"no ImageNet at {folder}; put the validation images there in one subfolder a class "
            "(n01440764, ...), or name the folder above val with --data-dir"
        )
    with needed("robustbench", "robustbench", "--dataset imagenet"):
        from robustbench.loaders import CustomImageFolder

    try:
        samples = CustomImageFolder(str(folder)).samples
    except Exception as error:
        raise DataError(f"{folder} cannot be read: {one_line(error)}") from error
    return ImageFiles(
        [Path(file) for file, _ in samples],
        [int(label) for _, label in samples],
        preprocessing or "Res256Crop224",
        "imagenet",
        seen=_as_robustbench,
    )


def _as_robustbench(picture: Any, where: str) -> Any:
    """The picture as torchvision's loader reads it, which the published numbers rest on."""
    return picture.convert("RGB")
