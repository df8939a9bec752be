"""Looks at a `.pt` file before torch does: what it would take in memory, and in time.

torch's own reader of weights calls nothing but constructors that it knows, so that no code runs. A
few bytes can still ask one of them for a hundred gigabytes, name a tuple whose hash takes years, or
stand for an archive that unpacks without end. A checkpoint needs none of that.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from flatguard.errors import ModelError, UntrustedCodeError, one_line

_LARGEST_PICKLE = 256 << 20
"""Bytes of what describes the tensors; their numbers stand beside it."""

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES = 5
"""A file of before torch 1.6: magic number, protocol, system, the object, the storages' keys.

torch reads no further than the first in a file with another magic number.
"""

_NEEDED = {"OrderedDict", "Counter", "set", "complex"}
"""What a state dict asks for beside torch's own. torch also allows `bytearray`, which takes as much
memory as it is told, and `encode`, which takes as much time."""

DEEPEST, _WIDEST = 64, 1 << 20
"""Of a tuple as a tree: its hash walks through all of it."""


class _Item(NamedTuple):
    """A value as a tree: how deep it is, and how many values it has."""

    depth: int = 0
    values: int = 1


_ATOM = _Item()
_PUSHED = {
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINSTRING", "GLOBAL", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_SET",
}  # fmt: skip
_POPPED = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
_JOINED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2}


_ONLY_WEIGHTS, _ANY_CODE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def pickle_code(allowed: bool | None = None) -> Iterator[None]:
    """What `torch.load` may run is decided here, whatever the caller's environment says.

    torch reads two variables that overrule `weights_only`, or stand for it where a library gives
    none, and refuses to load anything where both are set.

    Args:
        allowed: whether files may run code; None leaves it to the argument of each call.
    """
    before = {name: os.environ.pop(name, None) for name in (_ONLY_WEIGHTS, _ANY_CODE)}
    if allowed is not None:
        os.environ[_ANY_CODE if allowed else _ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def check_pickle(path: Path) -> None:
    """Look at a torch file; nothing in it is loaded.

    Costs about 2 µs for each instruction of the pickle, 30 of them a tensor.

    Raises:
        ModelError: damaged, or it unpacks to more than it is.
        UntrustedCodeError: it asks for more than a state dict needs.
    """
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                is_legacy = stream.read(len(_LEGACY)) == _LEGACY
                stream.seek(0)
                for _ in range(_LEGACY_PICKLES if is_legacy else 1):
                    _check_instructions(path, stream)
            return
        with zipfile.ZipFile(path) as archive, archive.open(_description(path, archive)) as stream:
            _check_instructions(path, stream)
    except (ModelError, UntrustedCodeError):
        raise
    # pickletools and zipfile raise their own, and whatever a cut file leads them to.
    except Exception as error:
        raise ModelError(
            f"{path} is damaged or truncated, or no checkpoint: {one_line(error)}"
        ) from error


def _description(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The entry that describes the tensors, of an archive that is as large as it looks."""
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    # torch never compresses; entries that overlap would be larger together than their file.
    if unpacked > path.stat().st_size or any(e.compress_type for e in entries):
        raise ModelError(f"{path} is damaged: it unpacks to more than it is, {unpacked:,} bytes")
    found = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
    if len(found) != 1 or len({e.filename.lower() for e in entries}) != len(entries):
        raise ModelError(f"{path} is damaged, or no checkpoint: expected one data.pkl in it")
    if found[0].file_size > _LARGEST_PICKLE:
        raise ModelError(f"{path}: its description of tensors is {found[0].file_size:,} bytes")
    return found[0]


def _check_instructions(path: Path, stream: IO[bytes]) -> None:
    """Follow a pickle's stack and memo, with trees' sizes in place of values."""
    stack: list[_Item | None] = []  # None is a mark
    memo: dict[object, _Item] = {}
    asked = []
    for operation, argument in _instructions(stream):
        if operation == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            if module.partition(".")[0] != "torch" and name not in _NEEDED:
                asked.append(f"{module}.{name}")
        if operation in _PUSHED:
            stack.append(_ATOM)
        elif operation in _JOINED:
            stack.append(_joined(path, [_pop(stack) for _ in range(_JOINED[operation])]))
        elif operation == "TUPLE":
            stack.append(_joined(path, _to_mark(stack)))
        elif operation in ("APPENDS", "SETITEMS"):
            _to_mark(stack)
        elif operation in _POPPED:
            for _ in range(_POPPED[operation]):
                _pop(stack)
        elif operation == "MARK":
            stack.append(None)
        elif operation in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = _top(stack)
        elif operation in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif operation not in ("BINPERSID", "PROTO", "STOP"):
            break  # torch's reader refuses it
    if asked:
        first = min(asked, key=lambda name: name in ("__builtin__.bytearray", "_codecs.encode"))
        raise UntrustedCodeError(
            f"{path} is a pickle that runs code when it is loaded (it asks for {first}); save a "
            "state dict as .safetensors, or type --allow-code if you trust the file"
        )


def _instructions(stream: IO[bytes]) -> Iterator[tuple[str, object]]:
    for operation, argument, _ in pickletools.genops(stream):
        yield operation.name, argument


def _joined(path: Path, parts: list[_Item]) -> _Item:
    depth = 1 + max((part.depth for part in parts), default=0)
    values = 1 + sum(part.values for part in parts)
    if depth > DEEPEST or values > _WIDEST:
        raise ModelError(f"{path} is no checkpoint: it nests tuples {depth} deep, {values} wide")
    return _Item(depth, values)


def _to_mark(stack: list[_Item | None]) -> list[_Item]:
    parts = []
    while (item := stack.pop()) is not None:
        parts.append(item)
    return parts


def _pop(stack: list[_Item | None]) -> _Item:
    item = stack.pop()
    if item is None:
        raise ValueError("a mark where a value was expected")
    return item


def _top(stack: list[_Item | None]) -> _Item:
    item = stack[-1]
    return _ATOM if item is None else item
