"""Reads YAML with the line of every key, by the safe loader: a config never runs code.

The size is limited, and aliases are refused: ten lines of aliases to aliases expand to a billion
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flatguard.errors import UsageError, one_line

LARGEST = 32 * 1024
"""In bytes; YAML is read at about 100 kB a second."""

DEEPEST = 16


@dataclass(frozen=True)
class Positions:
    """A YAML file's values, and the line of each of them.

    Attributes:
        file: its path, for messages.
        values: by key.
        node: the same as a tree of YAML nodes, which have lines.
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
        """The line, from 1, of the deepest part of a path that exists."""
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
    node, values = _parsed(file, _text(file))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UsageError(f"{file}:1: expected keys and values, got {type(values).__name__}")
    positions = Positions(file, values, node)
    _refuse_repeated(positions, node)
    return positions


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {one_line(error)}") from error
    if len(content) > LARGEST:
        raise UsageError(f"{file}: expected a config of at most {LARGEST // 1024} KiB")
    return text


def _parsed(file: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """A YAML file's tree, and its values."""
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{file}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not valid YAML: {one_line(error)}") from error
    except Exception as error:  # PyYAML leaves an impossible date or number to Python
        raise UsageError(f"{file}: not valid YAML: {one_line(error)}") from error


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases, deep nesting and huge numbers, which no config needs."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias before it is expanded, and a part that is nested too deeply."""
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not allowed in a config")
        if self.depth == DEEPEST:
            raise self._refused("it is nested too deeply")
        self.depth += 1
        composed: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return composed

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Refuse an integer with thousands of digits."""
        value: Any = super().construct_object(node, deep)
        if isinstance(value, int) and value.bit_length() > 64:
            raise yaml.constructor.ConstructorError(
                None, None, "a number is too large", node.start_mark
            )
        return value

    def _refused(self, why: str) -> yaml.YAMLError:
        return yaml.composer.ComposerError(None, None, why, self.get_mark())


def _child(node: yaml.Node | None, part: Any) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        pairs = [(key, value) for key, value in node.value if key.value == str(part)]
        return pairs[0] if pairs else None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _refuse_repeated(positions: Positions, node: yaml.Node | None) -> None:
    """Refuse a key that occurs twice: YAML takes the last one without a warning."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[Any, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise UsageError(
                f"{positions.file}:{line}: {key.value}: this key is in line {seen[key.value]} "
                "already"
            )
        seen[key.value] = line
        _refuse_repeated(positions, value)
