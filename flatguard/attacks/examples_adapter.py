"""Stored adversarial examples as an attack: `examples:FILE` returns those of the block's images.

Nothing of the attack that made them needs to be installed. Where an image has several, the first
that fools the model counts; an image without one stays as it is.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.attacks.attack import Attack, AttackInfo, check_args
from flatguard.attacks.example_matching import Matching, digest, match, moved_back
from flatguard.attacks.monitor import Monitor, Order
from flatguard.data.dataset import Dataset
from flatguard.data.example_file import SUFFIXES, StoredExamples, read_examples, read_indices
from flatguard.data.sampling import Shuffled
from flatguard.errors import AttackError, UsageError
from flatguard.geometry.budget import Budget, Norm, pretty_eps
from flatguard.request import EXAMPLES

_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1", "L0")
_INDICES = inspect.Parameter("indices", inspect.Parameter.KEYWORD_ONLY, default=None)


def infos() -> dict[str, AttackInfo]:
    """None can be listed: a name holds the path of a file."""
    return {}


def find(name: str) -> AttackInfo:
    """The attack of this name; its file must be there.

    Raises:
        AttackError: there is no such file, or not one that is read.
    """
    file = file_of(name)
    if file.suffix not in SUFFIXES:
        raise AttackError(f"{name}: expected the path of a file of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise AttackError(f"{name}: no file {file}")
    return AttackInfo(
        name, "examples", _NORMS, {"indices": _INDICES}, order=Order(keeps=True)
    )  # fmt: skip


def file_of(name: str) -> Path:
    """The file of an attack's name."""
    return Path(name.removeprefix(EXAMPLES))


def build(name: str, budget: Budget, num_classes: int, args: dict[str, Any]) -> Attack:
    """The examples of a file, read; `meet` finds the images that they belong to."""
    info = find(name)
    return StoredAttack(info, budget, num_classes, check_args(info, args))


@dataclass
class StoredAttack(Attack):
    """Examples that were made elsewhere."""

    _stored: StoredExamples = field(init=False)
    _matching: Matching | None = field(default=None, init=False)
    _images: Tensor = field(init=False)
    _rows: dict[bytes, list[int]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._stored = read_examples(file_of(self.info.name))

    def meet(self, dataset: Dataset, count: int) -> None:
        """Find the image of every example.

        Raises:
            DataError: no example belongs to one of these images, or indices contradict them.
        """
        stored, given = self._stored, self.args.get("indices")
        numbers = stored.indices if given is None else self._numbers(given)
        if numbers is not None and isinstance(dataset, Shuffled):
            raise UsageError(
                "indices count the images in the data set's own order: leave out --shuffle"
            )
        found = match(stored, dataset, count, self.budget, numbers)
        self._images, moved = moved_back(stored, dataset, self.budget, found)
        self._matching, self._rows = found, found.rows()
        self.notes = tuple(_notes(stored, found, self.budget, moved))

    def _numbers(self, given: Any) -> Tensor:
        """The user's indices: a file, or the numbers themselves."""
        if isinstance(given, str):
            numbers = read_indices(Path(given))
        elif isinstance(given, (list, tuple)) and all(type(each) is int for each in given):
            numbers = torch.tensor(given, dtype=torch.int64)
        else:
            raise AttackError(
                f"indices: expected a file, or a list of whole numbers, got {given!r}"
            )
        one_set = len(self._stored) // self._stored.sets
        repeats = self._stored.sets if len(numbers) == one_set else 1
        return numbers.repeat(repeats)

    @property
    def matching(self) -> Matching:
        """Where the examples belong.

        Raises:
            AttackError: the attack did not meet its images yet.
        """
        if self._matching is None:
            raise AttackError(f"{self.info.name} must meet the images of its examples first")
        return self._matching

    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, seed: int, monitor: Monitor
    ) -> Tensor:
        _ = self.matching
        rows = [self._rows.get(digest(image), []) for image in images.cpu()]
        found = images.clone()
        for place, known in enumerate(rows):
            if known:
                found[place] = self._images[known[0]].to(images)
        left = [place for place, known in enumerate(rows) if len(known) > 1]
        turn = 0
        while left:
            with torch.no_grad():
                wrong = model(found[left]).argmax(dim=1) != labels[left]
            turn += 1
            right = [p for p, is_wrong in zip(left, wrong.tolist(), strict=True) if not is_wrong]
            left = [place for place in right if len(rows[place]) > turn]
            for place in left:
                found[place] = self._images[rows[place][turn]].to(images)
        return found

    def effective_args(self) -> dict[str, Any]:
        """What was read, by its content, and which images have no example."""
        stored, found = self._stored, self.matching
        content = hashlib.sha256(stored.images.numpy().tobytes() + found.image.tobytes())
        return {
            **self.args,
            "read": f"{stored.kind}; {stored.stored_as}",
            "examples": len(stored),
            "sets": stored.sets,
            "matched_by": found.by,
            "without_example": ranges(found.without),
            "sha256": content.hexdigest(),
        }

    def expected_calls(self) -> int | None:
        """None where every image has one example, which is not shown to the model to choose."""
        return self._stored.sets - 1 or None


def _notes(stored: StoredExamples, found: Matching, budget: Budget, moved: int) -> list[str]:
    """What a person should know about the examples, with counts; nothing where nothing is odd."""
    m, count, notes = len(stored), len(found.digests), []
    if found.moved:
        notes.append(
            f"{found.moved} of {m} examples are in another order than the images: matched by "
            "content"
        )
    if found.unmatched:
        near = "" if found.nearest is None else f", the nearest at {pretty_eps(found.nearest)}"
        notes.append(
            f"{found.unmatched} of {m} examples belong to none of these {count} images: they lie "
            f"outside the budget of each{near}, or are not finite"
        )
    if found.without:
        notes.append(
            f"{len(found.without)} of {count} images have no example and stay as they are: "
            f"{shown(ranges(found.without))}"
        )
    if moved:
        notes.append(
            f"{moved} of {m} examples lie outside {budget} by the rounding of {stored.stored_as}: "
            "they are moved back into it before they are judged"
        )
    if found.beyond:
        notes.append(
            f"{found.beyond} of {m} examples lie outside {budget}, up to "
            f"{pretty_eps(found.farthest)}: they do not count"
        )
    if found.leaving:
        notes.append(f"{found.leaving} of {m} examples leave [0, 1]: they do not count")
    if found.several:
        notes.append(
            f"{found.several} images have several examples: the first that fools the model counts"
        )
    if found.ambiguous:
        notes.append(
            f"{found.ambiguous} examples lie within the budget of several images: each counts for "
            "the nearest; --indices names their images"
        )
    if found.other_labels:
        notes.append(
            f"the file has other labels than the images for {found.other_labels} of {m} examples; "
            "those of the images count"
        )
    return notes


def ranges(numbers: tuple[int, ...]) -> str:
    """`0-4,9` for 0, 1, 2, 3, 4 and 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in parts)


def shown(text: str, most: int = 60) -> str:
    """The beginning of a long list of ranges."""
    return text if len(text) <= most else f"{text[:most].rpartition(',')[0]},..."
