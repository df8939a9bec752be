"""Programs: networks that come with their own code, from TorchScript or torch.export.

Some take batches of one size only. They are called with such batches, and a note says so.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from flatguard.errors import ModelError, one_line, ran_out_of_memory

_EXPORTED = ("serialized_exported_program.json", "archive_format")
"""Files in an archive of torch.export; newer ones have a folder `models`."""

_MOST_IMAGES = 1 << 20
"""A larger bound of a batch is none."""


_TRIED = (*range(1, 17), 20, 24, 25, 32, 48, 50, 64, 96, 100, 128, 200, 250, 256, 500, 512)
"""The sizes of batches that are tried on a script that refuses one."""


class Program(nn.Module):
    """Wraps a loaded program in an ordinary module, so that hooks observe its calls.

    Args:
        program: of TorchScript or torch.export.
        batches: the smallest and the largest batch that it takes; None takes any. A larger batch is
            cut into parts, and a smaller one is filled up with its last image. A script that was
            traced for one size shows it at the first call.
    """

    def __init__(self, program: Any, batches: tuple[int, int] | None = None):
        super().__init__()
        self.program, self.batches = program, batches

    def forward(self, images: Tensor) -> Any:
        """The output of the program: a tensor, or a structure of tensors."""
        if self.batches is not None or not isinstance(self.program, torch.jit.ScriptModule):
            return self._in_parts(images)
        try:
            output = self.program(images)
            if not isinstance(output, Tensor) or len(output) == len(images):
                return output
        except RuntimeError as error:
            size = None if ran_out_of_memory(error) else self._only_size(images)
            if size is None:
                raise
        else:
            size = self._only_size(images)
            if size is None:
                return output  # the caller names its shape
        self.batches = size, size
        return self._in_parts(images)

    def _in_parts(self, images: Tensor) -> Any:
        least, most = self.batches or (0, max(1, len(images)))
        return _joined([self._part(part, least) for part in images.split(most)])

    def _part(self, images: Tensor, least: int) -> Any:
        if len(images) >= least:
            return self.program(images)
        more = images[-1:].expand(least - len(images), *images.shape[1:])
        output = self.program(torch.cat([images, more]))
        return tree_map_only(Tensor, lambda each: each[: len(images)], output)

    def _only_size(self, images: Tensor) -> int | None:
        """The first of the usual sizes that a script takes, if it takes none that is larger."""
        first = next((size for size in _TRIED if self._takes(images, size)), None)
        return None if first is None or self._takes(images, first + 1) else first

    def _takes(self, images: Tensor, size: int) -> bool:
        with torch.no_grad():
            try:
                output = self.program(images[:1].expand(size, *images.shape[1:]).contiguous())
            except RuntimeError:
                return False
        return isinstance(output, Tensor) and output.ndim == 2 and len(output) == size

    def train(self, mode: bool = True) -> Program:
        """Switch the mode of a TorchScript program; that of an exported program is fixed."""
        self.training = mode
        if isinstance(self.program, torch.jit.ScriptModule):
            self.program.train(mode)
        return self


def _joined(parts: list[Any]) -> Any:
    """The outputs for parts of a batch as one: each tensor in a structure is joined."""
    if len(parts) == 1 and not isinstance(parts[0], Tensor):
        return parts[0]

    def together(*each: Any) -> Any:
        return torch.cat(each) if isinstance(each[0], Tensor) else each[0]

    return tree_map(together, *parts)


def load_program(path: Path, kind: str) -> nn.Module:
    """The program in a file, whose code runs.

    Raises:
        ModelError: the file is damaged, or of a version that this torch does not read.
    """
    try:
        if kind == "TorchScript":
            return Program(torch.jit.load(str(path), map_location="cpu"))
        exported = torch.export.load(str(path))
        module = Program(exported.module(), _batches_of(exported))
        module.training = False
        for part in module.modules():
            part.training = False
        return module
    except Exception as error:  # a program's loader runs the program's own code
        raise ModelError(f"{path}: cannot load {kind}: {one_line(error)}") from error


def _batches_of(exported: Any) -> tuple[int, int] | None:
    """The smallest and largest batch that an exported program takes; None if it takes any."""
    inputs = exported.graph_signature.user_inputs
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            size = node.meta["val"].shape[0]
            if type(size) is int:
                return size, size
            limits = exported.range_constraints.get(size.node.expr)
            if limits is None:
                return None
            most = int(limits.upper) if limits.upper < _MOST_IMAGES else _MOST_IMAGES
            return max(1, int(limits.lower)), most
    return None


def batch_notes(model: nn.Module) -> tuple[str, ...]:
    """What a user should know about the batches that a model's programs take."""
    notes = []
    for part in model.modules():
        least, most = (isinstance(part, Program) and part.batches) or (1, _MOST_IMAGES)
        if (least, most) != (1, _MOST_IMAGES):
            sizes = f"{least} only" if least == most else f"{least} to {most}"
            notes.append(
                f"the program takes batches of {sizes}: larger ones are cut into parts, smaller "
                "ones are filled up with copies of their last image"
            )
    return tuple(notes)


def program_kind(path: Path) -> str | None:
    """TorchScript or torch.export, in words; None for another file.

    Raises:
        Exception: the file is damaged; zipfile raises four kinds.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name.split("/", 1)[-1] for name in archive.namelist()]
    if any(name.startswith("code/") for name in names):
        return "TorchScript"
    exported = any(name in _EXPORTED or name.startswith("models/") for name in names)
    return "a torch.export program" if exported else None
