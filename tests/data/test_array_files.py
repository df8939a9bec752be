"""Array files: every format gives the same bits, and bad files are refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flatguard.data import array_files, load_dataset
from flatguard.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)


LABELS = np.arange(10) % 3


def npz(folder: Path) -> str:
    np.savez(folder / "d.npz", images=PIXELS, labels=LABELS)
    return str(folder / "d.npz")


def npy_pair(folder: Path) -> str:
    np.save(folder / "x.npy", PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    np.save(folder / "y.npy", LABELS)
    return f"{folder / 'x.npy'},{folder / 'y.npy'}"


def pt_dict(folder: Path) -> str:
    torch.save({"x_test": torch.tensor(PIXELS), "y_test": torch.tensor(LABELS)}, folder / "d.pt")
    return str(folder / "d.pt")


def pt_pair(folder: Path) -> str:
    torch.save((torch.tensor(PIXELS), torch.tensor(LABELS)), folder / "d.pt")
    return str(folder / "d.pt")


@pytest.mark.parametrize("make", [npz, npy_pair, pt_dict, pt_pair])
def test_every_source_gives_the_same_bits(make: Callable[[Path], str], tmp_path: Path) -> None:
    dataset = load_dataset(make(tmp_path))
    batch = dataset.block(2, 9)
    assert torch.equal(batch.images, torch.tensor(PIXELS[2:9]).permute(0, 3, 1, 2).float() / 255)
    assert batch.images.is_contiguous()
    assert batch.labels.tolist() == LABELS[2:9].tolist()
    assert batch.labels.dtype == torch.int64


def test_npy_files_are_not_read_as_a_whole(tmp_path: Path) -> None:
    """A sparse file of 200 GB opens, and its first block is served."""
    shape = (16_000_000, 3, 64, 64)
    images = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, shape)
    del images
    np.save(tmp_path / "y.npy", np.zeros(shape[0], dtype=np.uint8))
    dataset = load_dataset(f"{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}")
    assert len(dataset) == shape[0]
    assert dataset.block(5, 7).images.shape == (2, 3, 64, 64)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_what_was_read_of_a_npy_file_is_not_kept_in_memory(tmp_path: Path) -> None:
    dataset = load_dataset(npy_pair(tmp_path))
    first = dataset.block(0, 4)
    assert "x.npy" not in Path("/proc/self/maps").read_text()
    assert torch.equal(dataset.block(0, 4).images, first.images)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = Path(npz(tmp_path)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "keys.npz", a=PIXELS, b=LABELS)
    np.savez(tmp_path / "objects.npz", images=np.array([{}, {}]), labels=LABELS[:2])
    (tmp_path / "empty").mkdir()
    for name, expected in {
        "cut.npz": "is damaged",
        "keys.npz": "expected an array named images",
        "objects.npz": "is damaged, or holds no plain arrays",
        "empty": "expected a subfolder a class",
        "nowhere.npz": "no data set",
        "nowhere.npy,y.npy": "no file",
        "a.npy,b.npy,c.npy": "expected images.npy,labels.npy",
    }.items():
        name = name if "," in name else str(tmp_path / name)
        with pytest.raises(DataError) as caught:
            load_dataset(name)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_pt_file_that_runs_code(tmp_path: Path) -> None:
    torch.save({"images": Path.cwd, "labels": 1}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="damaged, or holds no plain arrays"):
        load_dataset(str(tmp_path / "evil.pt"))


def test_an_archive_that_unpacks_to_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy would take all of it before it saw that the shape does not fit."""
    monkeypatch.setattr(array_files, "FREE", 1 << 20)
    file = tmp_path / "bomb.npz"
    np.savez_compressed(file, images=np.zeros((1000, 3, 64, 64), np.float32), labels=np.zeros(1000))
    assert file.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"would unpack to 0\.0 GiB, over 100 times its size"):
        load_dataset(str(file))


def test_commas_in_a_pair_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comma between them is the one that finds both; two ways are refused."""
    monkeypatch.chdir(tmp_path)
    np.save("a, b.npy", np.zeros((2, 8, 8, 3), np.uint8))
    np.save("c, d.npy", np.arange(2))
    assert len(load_dataset("a, b.npy,c, d.npy")) == 2
    Path("a.npy,b.npy").mkdir()
    with pytest.raises(DataError, match="expected a subfolder a class"):
        load_dataset("a.npy,b.npy")  # what is there by the whole name is meant
    with pytest.raises(DataError, match=r"no file x\.npy"):
        load_dataset("x.npy,y.npy")
    for name in ("p.npy", "q.npy,r.npy", "p.npy,q.npy", "r.npy"):
        np.save(name, np.arange(2))
    with pytest.raises(DataError, match="several ways"):
        load_dataset("p.npy,q.npy,r.npy")
