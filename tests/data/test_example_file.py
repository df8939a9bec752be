"""Stored adversarial examples: what is read, and what is refused by name."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flatguard.data.example_file import read_examples, read_indices
from flatguard.errors import DataError

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PREDICTED = torch.arange(6)


def torch_saved(held: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(held, file)


READ = {
    "a tensor, as RobustBench asks for": torch_saved(IMAGES),
    "AutoAttack before pyautoattack": torch_saved({"adv_complete": IMAGES}),
    "AutoAttack, with predictions": torch_saved({"adv_complete": (IMAGES, PREDICTED)}),
    "a pair": torch_saved((IMAGES, PREDICTED)),
    "torchattacks": torch_saved({"adv_inputs": IMAGES, "labels": PREDICTED, "save_type": "float"}),
    "Foolbox, one radius": torch_saved((IMAGES + 9, IMAGES, PREDICTED > 2)),
    "a list of images": torch_saved(list(IMAGES)),
    "a name of one's own": torch_saved({"mine": IMAGES, "eps": torch.tensor(0.1)}),
    "channels last": torch_saved(IMAGES.permute(0, 2, 3, 1)),
    "float64": torch_saved(IMAGES.double()),
}


@pytest.mark.parametrize("saved", READ.values(), ids=READ.keys())
def test_what_libraries_save_is_read(saved: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "adv.pt"
    saved(file)
    found = read_examples(file)
    assert torch.equal(found.images, IMAGES)
    assert found.order.tolist() == list(range(6))
    assert (found.sets, found.rounding) == (1, 0.0)
    assert (found.labels is not None) == ("adv_inputs" in str(found.kind))


def test_archives_of_numpy_and_safetensors(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", adversarial=IMAGES.numpy(), indices=[5, 4, 3, 2, 1, 0])
    np.save(tmp_path / "a.npy", IMAGES.numpy())
    save_file({"adversarial": IMAGES}, tmp_path / "a.safetensors")
    for name in ("a.npz", "a.npy", "a.safetensors"):
        assert torch.equal(read_examples(tmp_path / name).images, IMAGES)
    indices = read_examples(tmp_path / "a.npz").indices
    assert indices is not None
    assert indices.tolist() == [5, 4, 3, 2, 1, 0]


def test_several_sets_have_examples_of_the_same_images(tmp_path: Path) -> None:
    """Foolbox with several radii, and AutoAttack's `--individual`."""
    success = torch.zeros(2, 6, dtype=torch.bool)
    torch.save(([IMAGES, IMAGES], [IMAGES, IMAGES / 2], success), tmp_path / "foolbox.pt")
    torch.save({"apgd-ce": (IMAGES, PREDICTED), "square": (IMAGES / 2, PREDICTED)},
               tmp_path / "aa.pth")  # fmt: skip
    torch.save(torch.stack([IMAGES, IMAGES / 2]), tmp_path / "stacked.pt")
    for name in ("foolbox.pt", "aa.pth", "stacked.pt"):
        found = read_examples(tmp_path / name)
        assert found.sets == 2
        assert torch.equal(found.images, torch.cat([IMAGES, IMAGES / 2]))
        assert found.order.tolist() == [*range(6), *range(6)]


def test_a_type_that_rounds_is_named(tmp_path: Path) -> None:
    torch.save((IMAGES * 255).to(torch.uint8), tmp_path / "a.pt")
    found = read_examples(tmp_path / "a.pt")
    assert (found.stored_as, found.rounding) == ("uint8", 1 / 255)
    assert float((found.images - IMAGES).abs().max()) <= 1 / 255
    torch.save(IMAGES.half(), tmp_path / "half.pt")
    assert read_examples(tmp_path / "half.pt").rounding == 2.0**-11


def test_only_rounding_errors_are_moved_into_the_box(tmp_path: Path) -> None:
    images = IMAGES.clone()
    images[0, 0, 0, :4] = torch.tensor([-1e-7, 1 + 1e-6, -0.1, float("nan")])
    torch.save(images, tmp_path / "a.pt")
    first = read_examples(tmp_path / "a.pt").images[0, 0, 0, :4]
    assert first[:3].tolist() == pytest.approx([0.0, 1.0, -0.1])
    assert first[0] == 0.0
    assert first[1] == 1.0
    assert bool(first[3].isnan())


MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
REFUSED = {
    "normalised": ((IMAGES - MEAN) / 0.225, "seem to be normalised: save x [*] std [+] mean"),
    "from 0 to 255": (IMAGES * 255, "values from .* outside in 6 of 6 examples; divide them by"),
    "from -1 to 1": (IMAGES * 2 - 1, r"in \[-1, 1\]: save \(x [+] 1\) / 2"),
    "whole numbers": ((IMAGES * 255).long(), "expected uint8 or floating-point images"),
    "no finite one": (IMAGES * float("nan"), "no example is finite"),
    "nothing": (IMAGES[:0], "holds no examples"),
    "flat": (IMAGES.flatten(1), "expected images in"),
    "batches": ([IMAGES[:3], IMAGES[3:]], "a list of 2 arrays may be batches of one set"),
    "a classifier's weights": ({"fc.weight": torch.rand(10, 4)}, "under a name such as"),
    "two that may be meant": ({"a": IMAGES, "b": IMAGES}, "under a name such as .*got a, b"),
    "other labels": ({"adv": IMAGES, "labels": PREDICTED[:5]}, "6 examples but 5 labels"),
    "a class": ({"adv": torch.nn.Linear(2, 2)}, "holds more than tensors, and loading that may"),
}


@pytest.mark.parametrize(("held", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_set_of_examples_is_refused_by_name(
    held: Any, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "adv.pt"
    torch.save(held, file)
    with pytest.raises(DataError, match=expected) as caught:
        read_examples(file)
    assert len(str(caught.value).splitlines()) == 1
    assert str(file) in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("owned"),)


def test_no_file_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"adv": Hostile()}, "torch.pt")
    Path("plain.pt").write_bytes(pickle.dumps({"adv": Hostile()}))
    np.save("object.npy", np.array([Hostile()], object), allow_pickle=True)
    np.savez("object.npz", adv=np.array([Hostile()], object))
    for file in ("torch.pt", "plain.pt", "object.npy", "object.npz"):
        with pytest.raises(DataError):
            read_examples(Path(file))
    assert not Path("owned").exists()


def test_damaged_files_and_others(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(IMAGES, whole)
    for name in ("cut.pt", "cut.npz", "cut.npy", "cut.safetensors"):
        (tmp_path / name).write_bytes(whole.getvalue()[:-200])
        with pytest.raises(DataError, match="is damaged"):
            read_examples(tmp_path / name)
    with pytest.raises(DataError, match="no file"):
        read_examples(tmp_path / "none.pt")
    (tmp_path / "adv.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected a file of \.pt"):
        read_examples(tmp_path / "adv.png")


def test_indices(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.array([3, 1, 2]))
    np.savez(tmp_path / "i.npz", indices=np.array([3, 1, 2]), other=np.zeros(9))
    torch.save(torch.tensor([3, 1, 2]), tmp_path / "i.pt")
    (tmp_path / "i.txt").write_text("3\n1\n\n2\n")
    for name in ("i.npy", "i.npz", "i.pt", "i.txt"):
        assert read_indices(tmp_path / name).tolist() == [3, 1, 2]
    (tmp_path / "i.txt").write_text("3\none\n")
    with pytest.raises(DataError, match=r"expected one whole number a line; .*'one'"):
        read_indices(tmp_path / "i.txt")
    np.save(tmp_path / "i.npy", np.array([0.5, 1.0]))
    with pytest.raises(DataError, match=r"got 0\.5"):
        read_indices(tmp_path / "i.npy")
