"""Data sets: every source gives the same bits, and bad ones are refused by name and number."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatguard.data import array_files, load_dataset
from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Batch, Subset, blocks, check_labels
from flatguard.data.hashing import DataHash
from flatguard.errors import DataError, EnvironmentProblem

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


@pytest.mark.parametrize("kind", [">i8", "<u2", "f8", "i1"])
def test_labels_of_any_kind_of_number(kind: str) -> None:
    assert ArrayDataset(PIXELS, LABELS.astype(kind), "d").block(0, 10).labels.tolist() == list(
        LABELS
    )


def test_a_folder_of_images(tmp_path: Path) -> None:
    for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        folder = tmp_path / ["ant", "bee", "cat"][label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    dataset = load_dataset(str(tmp_path))
    order = np.argsort(LABELS, kind="stable")
    batch = dataset.block(0, 10)
    assert batch.labels.tolist() == LABELS[order].tolist()
    assert torch.equal(batch.images, torch.tensor(PIXELS[order]).permute(0, 3, 1, 2).float() / 255)


def test_folders_that_are_numbers_are_labels(tmp_path: Path) -> None:
    for name in ("10", "2"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / name / "a.png")
    assert sorted(load_dataset(str(tmp_path)).block(0, 2).labels.tolist()) == [2, 10]


def test_images_of_different_sizes(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "0" / "a.png")
    Image.fromarray(PIXELS[0][:4]).save(tmp_path / "0" / "b.png")
    with pytest.raises(DataError, match="different sizes"):
        load_dataset(str(tmp_path)).block(0, 2)
    cropped = load_dataset(str(tmp_path), preprocessing="Res224").block(0, 2)
    assert cropped.images.shape == (2, 3, 224, 224)
    with pytest.raises(DataError, match="unknown preprocessing"):
        load_dataset(str(tmp_path), preprocessing="Crop7")


def test_the_demo(demo_batch: Batch) -> None:
    assert demo_batch.images.shape == (20, 3, 32, 32)
    assert demo_batch.labels[:6].tolist() == [3, 8, 8, 0, 6, 6]


def test_the_demo_is_the_first_20_of_cifar(demo_batch: Batch, real: Path) -> None:
    published = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, 20)
    assert torch.equal(published.images, demo_batch.images)
    assert torch.equal(published.labels, demo_batch.labels)


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


def test_the_hash_does_not_depend_on_the_blocks() -> None:
    dataset = ArrayDataset(PIXELS, LABELS, "d")
    digests = set()
    for size in (1, 3, 10):
        digest = DataHash()
        for _, batch in blocks(dataset, 10, size):
            digest.update(batch)
        digests.add(digest.hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("factor", [255.0, -1.0, 1.0001])
def test_images_outside_the_box(factor: float) -> None:
    images = np.ones((4, 3, 5, 5), dtype=np.float32) * 0.5
    images[2, 1] = factor
    with pytest.raises(DataError, match=r"expected images in \[0, 1\].*in sample 2"):
        ArrayDataset(images, LABELS[:4], "d").block(0, 4)


def test_images_that_are_nan() -> None:
    images = np.full((2, 3, 5, 5), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match=r"expected images in \[0, 1\]"):
        ArrayDataset(images, LABELS[:2], "d").block(0, 2)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(label: int) -> None:
    batch = Batch(torch.zeros(3, 1, 2, 2), torch.tensor([0, label, 2]))
    with pytest.raises(DataError, match=f"labels from 0 to 2.*got {label} for sample 41"):
        check_labels(batch, 3, "d", start=40)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (PIXELS, LABELS[:9], "10 images but 9 labels"),
        (PIXELS, np.eye(10), "expected one label an image"),
        (PIXELS.reshape(10, -1), LABELS, "expected images"),
        (PIXELS, LABELS + 0.5, "expected integer labels, got 0.5"),
        (PIXELS, LABELS.astype(str), "expected numbers"),
        (PIXELS, np.array(3), "expected images .n, .... and labels"),
        (PIXELS * 1.0, LABELS, "divide by 255, or store uint8"),
        (PIXELS.astype(np.int32), LABELS, "expected uint8 or floating-point"),
        (PIXELS[:0], LABELS[:0], "holds no images"),
    ],
)
def test_arrays_that_are_no_images(images: np.ndarray, labels: np.ndarray, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        ArrayDataset(images, labels, "d").block(0, 10)


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


@pytest.mark.parametrize(
    ("name", "place"),
    [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python"), ("imagenet", "val")],
)
def test_a_benchmark_that_is_not_here(name: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=place) as caught:
        load_dataset(name, data_dir=tmp_path / "data")
    assert "--data-dir" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_archive_that_unpacks_to_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy would take all of it before it saw that the shape does not fit."""
    monkeypatch.setattr(array_files, "FREE", 1 << 20)
    file = tmp_path / "bomb.npz"
    np.savez_compressed(file, images=np.zeros((1000, 3, 64, 64), np.float32), labels=np.zeros(1000))
    assert file.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"would unpack to 0\.0 GiB, over 100 times its size"):
        load_dataset(str(file))


def folder_of(content: bytes, name: str = "a.png") -> str:
    Path("images/cat").mkdir(parents=True)
    Path("images/cat", name).write_bytes(content)
    return "images"


def test_a_picture_that_runs_a_program() -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file's name is."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match=r"a\.png is damaged"):
        load_dataset(folder_of(script)).block(0, 1)


def test_a_picture_of_more_pixels_than_memory() -> None:
    stream = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 300_000
    with pytest.raises(DataError, match="9000 x 9000 pixels are too many"):
        load_dataset(folder_of(stream.getvalue())).block(0, 1)


def test_a_pipe_among_pictures() -> None:
    load_dataset(folder_of(b""))
    os.mkfifo("images/cat/b.png")
    assert len(load_dataset("images")) == 1


def test_images_that_are_too_large_and_labels_that_are_too_long() -> None:
    huge = torch.zeros(1).expand(2, 3, 100_000, 100_000)  # one number in memory
    torch.save({"images": huge, "labels": torch.arange(2)}, "d.pt")
    with pytest.raises(DataError, match="too large"):
        load_dataset("d.pt")
    Path("images", "1" * 30).mkdir(parents=True)
    Path("images", "1" * 30, "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="named by a label"):
        load_dataset("images")


def test_a_subset_serves_in_the_order_that_is_asked() -> None:
    whole = ArrayDataset(torch.rand(6, 1, 2, 2), torch.arange(6), "whole")
    subset = Subset(whole, [4, 0, 5], "some")
    batch = subset.block(0, 3)
    assert (len(subset), batch.labels.tolist()) == (3, [4, 0, 5])
    assert torch.equal(batch.images[1], whole.block(0, 1).images[0])
    assert subset.block(1, 2).labels.tolist() == [0]


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
    with pytest.raises(DataError, match="two files in more than one way"):
        load_dataset("p.npy,q.npy,r.npy")
