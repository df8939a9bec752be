"""ImageNet: the 5,000 images and labels of RobustBench, in its order."""

import importlib.resources
from pathlib import Path

import pytest
from PIL import Image

from flatguard.data import load_dataset
from flatguard.errors import EnvironmentProblem


def test_a_missing_data_set(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no ImageNet at .*val") as caught:
        load_dataset("imagenet", data_dir=tmp_path / "data")
    assert "--data-dir" in str(caught.value)


def test_the_order_and_the_preprocessing_are_those_of_robustbench(tmp_path: Path) -> None:
    listed = importlib.resources.files("robustbench") / "helper_files"
    names = (listed / "imagenet_test_image_ids.txt").read_text().split()
    for name in names:
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
    for grey, name in enumerate(names[:3]):
        Image.new("RGB", (300, 260), (50 * grey,) * 3).save(tmp_path / "val" / name, "JPEG")
    dataset = load_dataset("imagenet", data_dir=tmp_path)
    batch = dataset.block(0, 3)
    classes = sorted({Path(name).parent.name for name in names})
    assert len(dataset) == 5000
    assert batch.labels.tolist() == [classes.index(Path(name).parent.name) for name in names[:3]]
    assert batch.images.shape == (3, 3, 224, 224)
    assert (batch.images.mean(dim=(1, 2, 3)) * 255).round().tolist() == [0, 50, 100]
