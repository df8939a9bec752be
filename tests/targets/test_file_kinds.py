"""Files that people take for a checkpoint: each is named by its content, in one line."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from flatguard.errors import ModelError
from flatguard.targets.checkpoint import load
from flatguard.targets.file_kinds import refuse_other_files


def saved(**how: object) -> bytes:
    stream = io.BytesIO()
    torch.save(nn.Linear(3, 2).state_dict(), stream, **how)  # type: ignore[arg-type]
    return stream.getvalue()


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def tar(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("w.pt"))
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


KINDS = {
    "empty": (b"", "damaged or truncated: it is empty; download or save it again"),
    "spaces": (b" \n", "it is empty"),
    "a mark of Unicode": (b"\xef\xbb\xbf", "it is empty"),
    "zeros": (bytes(4000), "it begins with zeros only"),
    "page": (b"\n<!DOCTYPE html><html>", "a page of the web"),
    "page with a mark": ("\ufeff<html>".encode(), "a page of the web"),
    "page in UTF-16": ("<html>é".encode("utf-16"), "a page of the web"),
    "page in UTF-8": (b"<p>" + "é".encode() * 2000, "a page of the web"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "JSON": (b'{"error": "Repository not found"}', r"JSON \(.*Repository not found"),
    "error": (b"Access Denied.", "a text that begins with 'Access Denied.'"),
    "code": (b"import torch\n", "a text that begins with 'import torch'"),
    "gzip": (gzip.compress(saved()), "compressed by gzip; unpack it"),
    "tar": (tar("w"), "an archive of tar; unpack it"),
    "tar.gz": (tar("w:gz"), "compressed by gzip; unpack it"),
    "tar.xz": (tar("w:xz"), "compressed by xz; unpack it"),
    "zip": (zipped("w.pt", "a", "b", "c"), "a zip archive of w.pt, a, b and 1 more; unpack it"),
    "arrays": (zipped("x.npy", "y.npy"), "an archive of NumPy's arrays"),
    "Keras": (zipped("config.json", "model.weights.h5"), "a model of Keras"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:", "a model of ONNX"),
    "TFLite": (b"\x1c\0\0\0TFL3", "a model of TensorFlow Lite"),
    "PNG": (picture("PNG"), "a picture"),
    "JPEG": (picture("JPEG"), "a picture"),
    "GIF": (picture("GIF"), "a picture"),
    "WebP": (picture("WEBP"), "a picture"),
    "TIFF": (picture("TIFF"), "a picture"),
    "BMP": (picture("BMP"), "a picture"),
    "PDF": (b"%PDF-1.4\n", "a PDF document"),
    "cut archive": (saved()[:-30], "damaged or truncated: it ends too early, after"),
    "cut old file": (
        saved(_use_new_zipfile_serialization=False)[:200], "truncated.*download or save it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.pt2", "w.pth.tar", "weights"])
@pytest.mark.parametrize(("content", "what"), KINDS.values(), ids=KINDS)
def test_a_file_is_named_by_its_content(
    content: bytes, what: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=what) as caught:
        load(tmp_path / name, arch="net:make")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_pass(legacy: bool, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(saved(_use_new_zipfile_serialization=not legacy))
    refuse_other_files(tmp_path / "w.bin")


@pytest.mark.parametrize("keep", [5, 8, 9, 60])
def test_safetensors_that_ends_in_its_header(keep: int, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(nn.Linear(3, 2).state_dict(), file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="it ends in its header, after"):
        load(file, arch="net:make")
