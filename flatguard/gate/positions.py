"""YAML with the line of every key, read by the safe loader: a config never runs code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flatguard.errors import UsageError, one_line


@dataclass(frozen=True)
class Positions:
    """A YAML file's values, and where each of them stands.

    Attributes:
        file: its path, for messages.
        values: what it says.
        node: the same as YAML's tree, which knows lines.
    """

    file: Path
    values: dict[str, Any]
    node: yaml.Node | None

    def error(self, path: Sequence[Any], message: str) -> UsageError:
        """An error about the key at this path."""
        names = [str(part) for part in path if not isinstance(part, int)]
        where = f"{self.file}:{self._line(path)}"
        return UsageError(": ".join([where, *([".".join(names)] if names else []), message]))

    def _line(self, path: Sequence[Any]) -> int:
        """The line of the deepest part of a path that is there, from 1."""
        node, line = self.node, 1
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line + 1
        return line


def read(file: Path) -> Positions:
    """Read a YAML file that is one mapping.

    Raises:
        UsageError: with the file and the line.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {one_line(error)}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{file}:{line}: this is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: this is no YAML: {one_line(error)}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UsageError(f"{file}:1: expected keys and values, got {type(values).__name__}")
    positions = Positions(file, values, node)
    _refuse_repeated(positions, node)
    return positions


def _child(node: yaml.Node | None, part: Any) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        pairs = [(key, value) for key, value in node.value if key.value == str(part)]
        return pairs[0] if pairs else None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _refuse_repeated(positions: Positions, node: yaml.Node | None) -> None:
    """YAML lets the last of two equal keys win, silently."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[Any, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise UsageError(
                f"{positions.file}:{line}: {key.value}: this key stands in line {seen[key.value]} "
                "already"
            )
        seen[key.value] = line
        _refuse_repeated(positions, value)
