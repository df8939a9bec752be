"""The texts that stand for the classes of a zero-shot model: names of classes and templates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flatguard.data.class_names import read_classes, read_texts
from flatguard.data.reading import reading
from flatguard.errors import DataError, UsageError, shortened
from flatguard.targets.shards import listed

DEFAULT_TEMPLATES = ("a photo of a {}.",)
_PLACE = "{}"
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Prompts:
    """The texts that stand for classes.

    Attributes:
        names: of the classes, in the order of the labels, as the data name them.
        words: of the classes, as they stand in the texts.
        templates: with `{}` where the words stand.
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES

    def of_class(self, number: int) -> list[str]:
        """All texts of one class."""
        return [template.replace(_PLACE, self.words[number]) for template in self.templates]

    @property
    def examples(self) -> list[str]:
        """A few texts, one a class."""
        return [self.of_class(number)[0] for number in range(min(3, len(self.words)))]

    @property
    def note(self) -> str:
        """One line for the user and the manifest."""
        more = f" and {len(self.templates) - 1} more" if len(self.templates) > 1 else ""
        return (
            f"zero-shot, {len(self.words)} classes: {listed(list(self.words))}; "
            f"template {shortened(self.templates[0], 80)!r}{more}"
        )


def read_prompts(classes: Path | None, templates: Path | None, model: str) -> Prompts:
    """The prompts of the files of `--classes` and `--templates`.

    Raises:
        UsageError: there are no classes.
        DataError: a file is not understood.
    """
    if classes is None:
        raise UsageError(
            f"{model} is a zero-shot model: name its classes with --classes FILE, one a line"
        )
    names, words = read_classes(classes), read_texts(classes)
    if len(names) < 2:
        raise DataError(f"--classes: {classes} has one name; expected at least two classes")
    return Prompts(
        names, words, DEFAULT_TEMPLATES if templates is None else read_templates(templates)
    )


def read_templates(file: Path) -> tuple[str, ...]:
    """The templates of a file, one a line, each with one `{}` for the class.

    Raises:
        DataError: no such file, no template, or one without its `{}`.
    """
    with reading(file, "holds no templates"):
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(f"--templates: {file} is too large for a list of templates")
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"--templates: {file} holds no templates; expected one a line")
    for line in lines:
        if line.count(_PLACE) != 1:
            raise DataError(
                f"--templates: expected one {_PLACE} for the class in each line of {file}, got "
                f"{shortened(line, 80)!r}"
            )
    return tuple(dict.fromkeys(lines))


def only_for_zero_shot(templates: Path | None, name: str) -> None:
    """Refuse `--templates` for a model whose classes are no texts.

    Raises:
        UsageError: names the model.
    """
    if templates is not None:
        raise UsageError(f"--templates belongs to a zero-shot model, not to {name!r}")
