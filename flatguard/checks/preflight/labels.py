"""Whether another order of the classes explains the decisions: labels shifted, sorted, permuted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_FEWEST = 8
"""Images; fewer show no order."""
GAIN, LEVEL = 0.10, 0.001
"""An explanation makes an accuracy better by so much, and is significant at this level."""


@dataclass(frozen=True)
class ClassOrder:
    """An order of the classes with which the decisions agree much better.

    Attributes:
        text: what was done to the labels.
        correct, images: how many decisions are right then.
    """

    text: str
    correct: int
    images: int


def is_much_better(gained: int, lost: int, images: int, tried: int = 1) -> bool:
    """Whether decisions are better by `GAIN`, and by an exact test of the changed ones.

    Args:
        gained: decisions that become right.
        lost: decisions that become wrong.
        images: all of them.
        tried: how many explanations were tried.
    """
    from scipy.stats import binomtest

    if gained - lost < GAIN * images or gained == 0:
        return False
    p = binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue
    return bool(p * tried < LEVEL)


def other_order(labels: np.ndarray, predictions: np.ndarray, classes: int) -> ClassOrder | None:
    """The simplest other order of the classes that explains the decisions; None if none does."""
    if len(labels) < _FEWEST:
        return None
    known = list(_known_orders(classes))
    best: ClassOrder | None = None
    for text, expected in known:
        found = _judged(text, expected[labels] == predictions, labels == predictions, len(known))
        if found is not None and (best is None or found.correct > best.correct):
            best = found
    permuted = _permuted(labels, predictions, classes)
    if best is None or (permuted is not None and permuted.correct > 1.1 * best.correct):
        return permuted or best
    return best


def _judged(text: str, right: np.ndarray, own: np.ndarray, tried: int) -> ClassOrder | None:
    gained, lost = int((right & ~own).sum()), int((own & ~right).sum())
    if not is_much_better(gained, lost, len(own), tried):
        return None
    return ClassOrder(text, int(right.sum()), len(own))


def _known_orders(classes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Orders that have a name: for each label, the class that the model answers."""
    numbers = np.arange(classes)
    if classes == 2:
        yield "the two classes are swapped", 1 - numbers
        return
    for shift in range(1, classes):
        signed = shift if shift <= classes // 2 else shift - classes
        by = "one" if abs(signed) == 1 else str(abs(signed))
        way = "low" if signed > 0 else "high"
        yield f"the labels are shifted: they are {by} too {way}", (numbers + shift) % classes
    yield "the classes are in reverse order", numbers[::-1]
    for first in (0, 1):
        as_text = np.argsort([str(number + first) for number in numbers], kind="stable")
        names = f"{first} to {classes - 1 + first}"
        yield f"the labels number the classes {names} in the order of text (1, 10, 2)", as_text
        yield (
            f"the model's classes {names} are in the order of text (1, 10, 2)",
            np.argsort(as_text),
        )


def _permuted(labels: np.ndarray, predictions: np.ndarray, classes: int) -> ClassOrder | None:
    """An order that is found on one half of the images and explains the other half."""
    fold = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        fold[rows] = np.arange(len(rows)) % 2
    right = np.zeros(len(labels), dtype=bool)
    for half in (0, 1):
        fitted, other = fold == half, fold != half
        if fitted.any() and other.any():
            order = _assignment(labels[fitted], predictions[fitted], classes)
            answers = np.array([order.get(int(label), -1) for label in labels[other]])
            right[other] = answers == predictions[other]
    order = _assignment(labels, predictions, classes)
    moved = {label: answer for label, answer in order.items() if label != answer}
    shown = sorted(moved.items())[:6]
    pairs = ", ".join(f"{label} → {answer}" for label, answer in shown)
    more = ", ..." if len(moved) > len(shown) else ""
    text = f"the classes are in another order (label → the model's class: {pairs}{more})"
    return _judged(text, right, labels == predictions, 1)


def _assignment(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict[int, int]:
    """The class that the model answers for each label, no class twice, right most often."""
    from scipy.optimize import linear_sum_assignment

    known = np.unique(labels)
    counts = np.zeros((len(known), classes))
    np.add.at(counts, (np.searchsorted(known, labels), predictions), 1)
    # Where the images do not decide, a label keeps its class.
    inside = known < classes
    counts[np.flatnonzero(inside), known[inside]] += 0.5
    rows, columns = linear_sum_assignment(-counts)
    return {int(known[row]): int(column) for row, column in zip(rows, columns, strict=True)}
