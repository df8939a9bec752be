"""CIFAR: a missing or damaged data set is reported in one line."""

from pathlib import Path

import pytest

from flatguard.data import load_dataset
from flatguard.errors import DataError, EnvironmentProblem


@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_a_missing_data_set(name: str, folder: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=folder) as caught:
        load_dataset(name, data_dir=tmp_path / "data")
    assert "--data-dir" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_damaged_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLATGUARD_OFFLINE", "1")
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"^cifar10 in .* cannot be read"):
        load_dataset("cifar10", data_dir=tmp_path)
