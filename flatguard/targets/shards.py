"""Which files a path names: one checkpoint, all shards of an index, or what lies in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatguard.errors import ModelError, check_readable, shortened

INDEX = ".index.json"
"""How the name of an index ends: `model.safetensors.index.json`."""

_LARGEST_INDEX = 1 << 26
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.[a-z]+)")
_USUAL = (
    "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)  # fmt: skip
"""What a folder of Hugging Face holds; the first of them is taken, as `transformers` does."""

_NO_FOLDERS = {
    ".metadata": "a distributed checkpoint of torch; join it with "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
    "zero_to_fp32.py": "a checkpoint of DeepSpeed; join it with the zero_to_fp32.py in it",
    "saved_model.pb": "a SavedModel of TensorFlow; export its weights",
    "data.pkl": "a checkpoint of torch that was unpacked; download it again, and leave it packed",
}
"""Folders that no loader reads, by a file in them."""

_SHOWN = 3


@dataclass(frozen=True)
class Shards:
    """The files of one checkpoint.

    Attributes:
        files: one file, or all shards in order.
        name: of the checkpoint, for messages.
        keys: the file of each name of a tensor; None without an index.
    """

    files: tuple[Path, ...]
    name: str
    keys: Mapping[str, Path] | None = None

    def joined(self, contents: list[Any]) -> Any:
        """The content of all files together.

        Raises:
            ModelError: a shard holds no tensors, lacks one, or two have one name.
        """
        if len(self.files) == 1 and self.keys is None:
            return contents[0]
        whole: dict[str, Any] = {}
        for file, content in zip(self.files, contents, strict=True):
            if not isinstance(content, Mapping):
                raise ModelError(f"{file} is no shard of weights: {type(content).__name__}")
            twice = [name for name in content if name in whole]
            if twice:
                raise ModelError(f"{self.name}: two shards hold {listed(twice)}")
            lacking = [n for n, f in (self.keys or {}).items() if f == file and n not in content]
            if lacking:
                raise ModelError(f"{file} lacks {listed(lacking)}, which {self.name} promises")
            whole.update(content)
        return whole


def shards_of(path: Path, suffixes: tuple[str, ...]) -> Shards:
    """The files that a path names.

    Args:
        path: a checkpoint, an index of shards, one of several shards, or a folder.
        suffixes: of checkpoints.

    Raises:
        ModelError: there is none; a shard is missing; or a folder holds several checkpoints.
    """
    if path.is_dir():
        return shards_of(_in_folder(path, suffixes), suffixes)
    if not path.is_file():
        raise ModelError(f"no file {path}; a model is a name or the path of a checkpoint")
    check_readable(path, ModelError)
    if path.suffix.lower() == ".json":
        shards = _of_index(path)
        if shards is not None:
            return shards
    of_many = _SHARD.fullmatch(path.name)
    if of_many is not None:
        return _of_numbers(path, of_many)
    return Shards((path,), path.name)


def _of_index(path: Path) -> Shards | None:
    """All shards of an index; None if the file is none."""
    if path.stat().st_size > _LARGEST_INDEX:
        raise ModelError(f"{path} is too large for an index of shards")
    try:
        held = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    places = held.get("weight_map") if isinstance(held, dict) else None
    if not isinstance(places, dict) or not places:
        return None
    odd = [n for n in places.values() if not isinstance(n, str) or n != Path(n).name or n == ".."]
    if odd:
        raise ModelError(f"{path}: expected names of files beside it, got {odd[0]!r}")
    keys = {name: path.parent / file for name, file in places.items()}
    return Shards(_existing(path, sorted(set(keys.values()))), path.name, keys)


def _of_numbers(path: Path, of_many: re.Match[str]) -> Shards:
    """All shards beside `model-00001-of-00003.safetensors`."""
    begins, _, count, suffix = of_many.groups()
    if not 1 <= int(count) <= _LARGEST_COUNT:
        raise ModelError(f"{path}: expected 1 to {_LARGEST_COUNT} shards")
    names = [f"{begins}-{number:05d}-of-{count}{suffix}" for number in range(1, int(count) + 1)]
    files = _existing(path, [path.with_name(name) for name in names])
    return Shards(files, f"{begins}{suffix}", {})


_LARGEST_COUNT = 10_000


def _existing(path: Path, files: list[Path]) -> tuple[Path, ...]:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            f"{path}: {len(missing)} of {len(files)} shards are missing: {listed(missing)}; "
            f"expected them in {path.parent}"
        )
    for file in files:
        check_readable(file, ModelError)
    return tuple(files)


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> Path:
    """The checkpoint in a folder: the usual one, or the only one."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    for name, kind in _NO_FOLDERS.items():
        if name in names:
            raise ModelError(f"{folder} is no checkpoint: it is {kind}")
    usual = [name for name in _USUAL if name in names]
    if usual:
        return folder / usual[0]
    indices = [name for name in names if name.endswith(INDEX)]
    whole = [name for name in names if name.endswith(suffixes) and not _SHARD.fullmatch(name)]
    parts = {match.group(1): name for name in names if (match := _SHARD.fullmatch(name))}
    found = indices or [*whole, *parts.values()]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise ModelError(f"{folder} holds several checkpoints: {listed(found)}; give one of them")
    raise ModelError(
        f"{folder} is a folder without a checkpoint ({', '.join(suffixes)}); it holds "
        f"{listed(names) or 'no files'}"
    )


def listed(names: list[str], shown: int = _SHOWN) -> str:
    """The first names, shortened, and how many more there are."""
    first = ", ".join(shortened(str(name), _LONGEST_NAME) for name in names[:shown])
    return f"{first} and {len(names) - shown} more" if len(names) > shown else first


_LONGEST_NAME = 80
