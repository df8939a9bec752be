"""Checks a `.pt` file before torch loads it: the code, the memory and the time that it would take.

torch's reader of weights calls only constructors from a fixed list, so that no other code runs. A
few bytes can still make one of them allocate a hundred gigabytes, build a tuple whose hash takes
years, or unpack an archive without end. No checkpoint needs any of that.
"""

from __future__ import annotations

import os
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from flatguard.errors import ModelError, UntrustedCodeError, one_line, shortened

_LARGEST_PICKLE = 256 << 20
"""Most bytes of the pickle that describes the tensors; their values are stored separately."""

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES = 5
"""The pickles in a file of torch before 1.6: magic number, protocol, system, object, storage keys.

In a file with another magic number, torch reads the first pickle only.
"""

_NEEDED = {"OrderedDict", "Counter", "set", "complex"}
"""What a state dict uses beside torch's own types. torch also allows `bytearray`, which allocates
any amount of memory, and `encode`, which takes any amount of time."""

DEEPEST, _WIDEST = 64, 1 << 20
"""The largest depth and size of a tuple as a tree: hashing it visits every node."""


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
    """Decide whether `torch.load` may run code, independent of the caller's environment.

    Two environment variables of torch override `weights_only`, or replace it if a library does not
    pass it. If both are set, torch refuses to load anything.

    Args:
        allowed: whether files may run code; None leaves it to `weights_only` of each call.
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
    """Check a torch file without loading anything from it.

    Costs about 2 µs for each instruction of the pickle; a tensor has about 30.

    Raises:
        ModelError: damaged, or it unpacks to more than its own size.
        UntrustedCodeError: it uses more than a state dict needs.
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
    # pickletools and zipfile raise many types on a truncated file.
    except Exception as error:
        raise ModelError(
            f"{path} is damaged or truncated, or no checkpoint: {one_line(error)}; download or "
            "save it again"
        ) from error


def _description(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The entry that describes the tensors, after checking the sizes in the archive."""
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    # torch never compresses; overlapping entries are larger in total than their file.
    if unpacked > path.stat().st_size or any(e.compress_type for e in entries):
        raise ModelError(f"{path} is damaged: it unpacks to more than its size, {unpacked:,} bytes")
    found = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
    if len(found) != 1 or len({e.filename.lower() for e in entries}) != len(entries):
        raise ModelError(f"{path} is damaged, or no checkpoint: expected one data.pkl in it")
    if found[0].file_size > _LARGEST_PICKLE:
        raise ModelError(f"{path}: its description of tensors is {found[0].file_size:,} bytes")
    return found[0]


def _check_instructions(path: Path, stream: IO[bytes]) -> None:
    """Simulate a pickle's stack and memo with the sizes of trees in place of values."""
    stack: list[_Item | None] = []  # None is a mark
    memo: dict[object, _Item] = {}
    forbidden = []
    operations = _instructions(stream)
    for operation, argument in operations:
        if operation == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            if module.partition(".")[0] != "torch" and name not in _NEEDED:
                forbidden.append(f"{module}.{name}")
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
            # torch's reader refuses this instruction: what else it asks for is only named
            forbidden += [n for n in _names(operations) if not _is_torchs(n)]
            break
    if forbidden:
        raise runs_code(path, forbidden)


def runs_code(path: Path, names: Iterable[str]) -> UntrustedCodeError:
    """The refusal of a pickle that asks for names which are not a state dict's."""
    last = ("__builtin__.bytearray", "_codecs.encode")
    found = sorted(dict.fromkeys(names), key=lambda name: name in last)
    shown = ", ".join(shortened(name, 80) for name in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    asks = f"asks for {shown}{more}" if found else "holds more than tensors"
    return UntrustedCodeError(
        f"{path} is a pickle that runs code when it is loaded (it {asks}); save a "
        "state dict as .safetensors, or type --allow-code if you trust the file"
    )


def names_in_pickle(path: Path) -> list[str]:
    """The names that a file's pickles ask for, but for those of torch that a state dict uses."""
    found: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(_description(path, archive)) as stream,
            ):
                found += _names(_instructions(stream))
        else:
            with path.open("rb") as stream:
                while stream.peek(1):
                    found += _names(_instructions(stream))
    except Exception:  # what follows the pickles of an old file is no pickle
        pass
    return list(dict.fromkeys(name for name in found if not _is_torchs(name)))


_SHOWN, _MOST_NAMES = 4, 1000
_OF_STATE = re.compile(
    r"torch\.(\w+|_utils\._\w+|_tensor\._\w+|storage\.\w+|nn\.parameter\.\w+|"
    r"serialization\._get_layout|jit\._pickle\.\w+)"
)
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def _is_torchs(name: str) -> bool:
    """Whether a state dict may ask for this name."""
    return _OF_STATE.fullmatch(name) is not None or name.rpartition(".")[2] in _NEEDED


def _names(operations: Iterator[tuple[str, object]]) -> list[str]:
    """All names that instructions ask for; newer protocols put them together from two strings."""
    names: dict[str, None] = {}
    memo: dict[object, str | None] = {}
    strings: list[str] = ["", ""]
    top: str | None = None
    for operation, argument in operations:
        if operation in ("GLOBAL", "INST"):
            names[str(argument).replace(" ", ".", 1)] = None
        elif operation == "STACK_GLOBAL":
            names[".".join(strings[-2:])] = None
        if operation == "MEMOIZE":
            memo[len(memo)] = top
        elif operation in _PUTS:
            memo[argument] = top
        elif operation not in ("FRAME", "PROTO"):
            top = str(argument) if operation in _STRINGS else None
            top = memo.get(argument) if operation in _GETS else top
            if top is not None:
                strings = [strings[-1], top]
        if len(names) > _MOST_NAMES:
            break
    return list(names)


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
