"""What a `.pt` file may ask for, and that a file which asks for more is refused at once."""

import argparse
import io
import pickle
import time
import zipfile
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatguard.data import load_dataset
from flatguard.environment.pickles import check_pickle
from flatguard.errors import DataError, FlatguardError, ModelError, UntrustedCodeError
from flatguard.targets.checkpoint import load

ARCH = f"{Path(__file__).parents[1] / 'support' / 'architectures.py'}:tiny"
START, END = b"\x80\x02}(", b"K\x02u."
ONE = b"X\x01\x00\x00\x00a"


def doubled(levels: int) -> bytes:
    """A tuple of two tuples of two tuples: its hash walks through 2^levels of them."""
    steps = (
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(levels)
    )
    return START + b"K\x01\x85q\x00" + b"".join(steps) + END


HOSTILE: dict[str, tuple[bytes, type[FlatguardError], str]] = {
    "a hundred gigabytes": (
        b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", UntrustedCodeError,
        "__builtin__.bytearray",
    ),
    "the same, sent on": (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(c__builtin__\nbytearray\nctorch\nTensor\n"
        b"J\xff\xff\xff\x7f\x85}tR.", UntrustedCodeError, "__builtin__.bytearray",
    ),
    "a slow encoding": (
        b"\x80\x02c_codecs\nencode\n" + ONE + b"X\x08\x00\x00\x00punycode\x86R.",
        UntrustedCodeError, "_codecs.encode",
    ),
    "a shell": (b"\x80\x02cos\nsystem\n" + ONE + b"\x85R.", UntrustedCodeError, "os.system"),
    "years of hashing": (doubled(60), ModelError, "it nests tuples"),
    "a deep tuple": (START + b"K\x01" + b"\x85" * 1_000_000 + END, ModelError, "it nests tuples"),
}  # fmt: skip


def in_archive(description: bytes) -> bytes:
    """A torch file with this description of its tensors."""
    saved, made = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            is_it = entry.filename.endswith("data.pkl")
            target.writestr(entry, description if is_it else source.read(entry))
    return made.getvalue()


@pytest.mark.parametrize("wrap", [bytes, in_archive])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_pickle_that_asks_for_more(case: str, wrap: Callable[[bytes], bytes]) -> None:
    content, kind, expected = HOSTILE[case]
    Path("w.pt").write_bytes(wrap(content))
    began = time.process_time()
    with pytest.raises(kind, match=expected):
        load(Path("w.pt"), arch=ARCH)
    with pytest.raises(DataError):
        load_dataset("w.pt")
    assert time.process_time() - began < 10


def test_an_archive_that_unpacks_to_more_than_it_is() -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 20)}, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile("w.pt", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
    assert Path("w.pt").stat().st_size < 50_000
    with pytest.raises(ModelError, match=r"unpacks to more than its size, 4,19\d,\d+ bytes"):
        load(Path("w.pt"), arch=ARCH)


def test_two_descriptions() -> None:
    """Two readers of one archive may each find another one."""
    Path("w.pt").write_bytes(in_archive(b"\x80\x02}."))
    with zipfile.ZipFile("w.pt", "a") as archive:
        archive.writestr("other/DATA.pkl", b"")
    with pytest.raises(ModelError, match=r"expected one data\.pkl"):
        load(Path("w.pt"), arch=ARCH)


def checkpoint() -> dict[str, Any]:
    """What training leaves: weights, an optimiser, a few facts."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3))
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 3, 5, 5)).sum().backward()
    optimiser.step()
    return {
        "state_dict": model.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3,
        "history": [(1, 0.5), (2, 0.4)], "best": torch.tensor(0.9), "seed": 2**70, "name": "é",
        "half": torch.rand(3).bfloat16(), "sparse": torch.eye(3).to_sparse(), "flags": {1, 2},
        "kept": nn.Parameter(torch.rand(2)), "size": torch.Size([1, 2]), "type": torch.float16,
    }  # fmt: skip


@pytest.mark.parametrize("modern", [True, False])
def test_what_training_leaves_is_fine(modern: bool) -> None:
    torch.save(checkpoint(), "w.pt", _use_new_zipfile_serialization=modern)
    check_pickle(Path("w.pt"))
    assert torch.load("w.pt", weights_only=True)["epoch"] == 3


def test_an_archive_that_is_damaged() -> None:
    whole = in_archive(pickle.dumps({}, 2))
    for cut in (whole[:-30], whole.replace(b"PK\x01\x02", b"PK\x09\x09"), b"PK\x05\x06" * 8):
        Path("w.pt").write_bytes(cut)
        with pytest.raises(ModelError, match="damaged"):
            load(Path("w.pt"), arch=ARCH)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("modern", [True, False])
def test_a_refusal_lists_all_that_a_pickle_asks_for(protocol: int, modern: bool) -> None:
    held = {
        "state_dict": nn.Linear(2, 2).state_dict(), "args": argparse.Namespace(a=1),
        "path": Path("x"), "queue": deque([1]), "step": Fraction(1, 2), "cost": Decimal(1),
    }  # fmt: skip
    torch.save(held, "w.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=modern)
    with pytest.raises(UntrustedCodeError) as caught:
        load(Path("w.pt"), arch=ARCH)
    assert "it asks for argparse.Namespace, pathlib." in str(caught.value)
    assert "collections.deque, fractions.Fraction and 1 more" in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_layers_of_a_whole_model_are_listed(protocol: int) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "w.pt", pickle_protocol=protocol)
    with pytest.raises(UntrustedCodeError, match=r"Sequential, torch.*Linear, .*ReLU\)"):
        load(Path("w.pt"), arch=ARCH)


def test_weights_in_a_newer_protocol_say_how_to_save_them() -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "w.pt", pickle_protocol=4)
    with pytest.raises(UntrustedCodeError, match=r"save a state dict again .* without pickle_prot"):
        load(Path("w.pt"), arch=ARCH)
