"""What people take for a checkpoint: a file that is another kind is named by its content."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from flatguard.errors import ModelError, shortened

AGAIN = "download or save it again"
_UNPACK = "unpack it, and give the checkpoint that is in it"
_PICTURE = "a picture; a data set is given with --dataset"
_CONVERT = "export the weights from the framework that wrote it"

_BEGINNINGS = {
    b"\x89HDF": "an HDF5 file of Keras or TensorFlow; convert its weights",
    b"GGUF": "a GGUF file of a language model",
    b"\x93NUMPY": "an array of NumPy; a data set is given with --dataset",
    b"\x1f\x8b": f"compressed by gzip; {_UNPACK}",
    b"BZh": f"compressed by bzip2; {_UNPACK}",
    b"\xfd7zXZ": f"compressed by xz; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"compressed by zstd; {_UNPACK}",
    b"7z\xbc\xaf": f"an archive of 7-Zip; {_UNPACK}",
    b"Rar!": f"a RAR archive; {_UNPACK}",
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"GIF8": _PICTURE,
    b"II*\x00": _PICTURE,
    b"MM\x00*": _PICTURE,
    b"%PDF": "a PDF document",
    b"SQLite format 3": "a database of SQLite",
    b"\x7fELF": "a program or library of Linux",
    b"MZ": "a program of Windows",
    b"PAR1": "a Parquet table; a data set is given with --dataset",
}
"""Kinds of files, by their first bytes."""

_LATER = {
    (257, b"ustar"): f"an archive of tar; {_UNPACK}",
    (8, b"WEBP"): _PICTURE,
    (4, b"TFL3"): f"a model of TensorFlow Lite; {_CONVERT}",
    (4, b"ET1"): "a program of ExecuTorch; give the weights that it was made from",
}
"""Kinds of files, by bytes further on."""

_ONNX = re.compile(rb"\x08[\x01-\x20](\x12|\x1a|\x22|\x32|\x3a|\x42)")
"""The version of ONNX's format, then one of the next fields."""

_OLDEST_PICKLE = re.compile(rb"\([cdlitp]|c[\w.]+\n\w+\n")
"""The first letters of pickles of protocol 0, which are texts."""

_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_HEAD = 1 << 10


def refuse_other_files(path: Path) -> None:
    """Refuse a file that is no checkpoint, by its content.

    Raises:
        ModelError: says what the file is and what to do; or that it is empty or truncated.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head.strip() or head in _BOMS:
        raise ModelError(f"{path} is damaged or truncated: it is empty; {AGAIN}")
    if not head.strip(b"\x00"):
        raise ModelError(f"{path} is damaged or truncated: it begins with zeros only; {AGAIN}")
    kind = _kind_of_archive(path) if head.startswith(b"PK") else _kind(path, head)
    if kind is not None:
        raise ModelError(f"{path} is no checkpoint: it is {kind}")


def _kind(path: Path, head: bytes) -> str | None:
    for begins, kind in _BEGINNINGS.items():
        if head.startswith(begins):
            return kind
    for (place, bytes_), kind in _LATER.items():
        if head[place:].startswith(bytes_):
            return kind
    if head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == path.stat().st_size:
        return _PICTURE
    if _ONNX.match(head) or path.suffix.lower() == ".onnx":
        return (
            "a model of ONNX, which has no gradients here; give the weights of PyTorch that it was "
            "exported from, with --arch"
        )
    text = _text(head)
    return None if text is None else _kind_of_text(path, text)


def _text(head: bytes) -> str | None:
    """The first line of a text; None if the file is no text, or a pickle of the oldest kind."""
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            return head[len(mark) :].decode(encoding, "ignore").strip()
    try:
        text = head.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a letter is cut at the end
            return None
        text = head[: error.start].decode("utf-8").strip()
    plain = all(letter.isprintable() or letter in "\r\n\t" for letter in text)
    return text if plain and not _OLDEST_PICKLE.match(head) else None


def _kind_of_text(path: Path, text: str) -> str:
    if text.startswith("version https://git-lfs"):
        return "a pointer of Git LFS; git lfs pull gets the file"
    if text.startswith("<"):
        return f"a page of the web, and no download; {AGAIN}"
    begins = repr(shortened(" ".join(text.split()), 60))
    if text[0] in "{[":
        return f"JSON ({begins}); give the file of weights beside it, or {AGAIN}"
    return f"a text that begins with {begins}; {AGAIN}"


def _kind_of_archive(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise ModelError(
            f"{path} is damaged or truncated: it ends too early, after {size:,} bytes; {AGAIN}"
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inside = [name.partition("/")[2] or name for name in names]
    if any(name.endswith(_PROGRAM_OR_WEIGHTS) for name in inside):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy's arrays; a data set is given with --dataset"
    if any(name.endswith(".weights.h5") for name in names):
        return f"a model of Keras; {_CONVERT}"
    shown = ", ".join(shortened(name, 60) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"a zip archive of {shown or 'nothing'}{more}; {_UNPACK}"


_PROGRAM_OR_WEIGHTS = ("data.pkl", "serialized_exported_program.json", "archive_format",
                       "archive_version")  # fmt: skip
"""Files in the archives of torch."""
