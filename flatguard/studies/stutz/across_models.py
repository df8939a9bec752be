"""Figures 1 and 7: flatness against robust loss, robust error and the gap, across training runs."""

from __future__ import annotations

from collections.abc import Sequence

from flatguard.studies.claim import Claim
from flatguard.studies.stutz.checkpoint import Checkpoint
from flatguard.studies.stutz.correlation import association
from flatguard.studies.stutz.from_runs import correlated
from flatguard.studies.stutz.table import last_epochs

CLEAR = "a clear correlation, no number"


def figure_1(checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """The last epoch of every training run: Figure 1, and what is left of it at a given loss."""
    rows = last_epochs(checkpoints)
    return [
        correlated(
            "flatness-rloss",
            "Robust loss and its flatness in weight space rise together (left panel).",
            CLEAR,
            association(rows, "flatness", "rloss"),
            "Flatness: Eq. (1), lower is flatter.",
        ),
        correlated(
            "flatness-rerr",
            "Robust error and flatness rise together.",
            CLEAR,
            association(rows, "flatness", "rerr"),
            _attack(checkpoints),
        ),
        correlated(
            "flatness-rerr-given-rloss",
            "Flatness says more about robust error than robust loss does.",
            "not claimed",
            association(rows, "flatness", "rerr", given="rloss"),
            "Partial rank correlation: among networks of equal robust loss.",
        ),
        correlated(
            "worst-rloss",
            "The same in the worst case.",
            "in the full paper",
            association(rows, "worst", "rloss"),
            "ξ is smaller there, and weights climb with the images.",
        ),
        correlated(
            "clean-flatness-rloss",
            "The same with flatness in the clean loss.",
            "weaker, in the full paper",
            association(rows, "flatness_clean", "rloss"),
        ),
    ]


def figure_7(checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """Flatness on training samples, and the robust generalisation gap."""
    rows = last_epochs(checkpoints)
    return [
        correlated(
            "training-flatness-rloss",
            "The relation is preserved where flatness is measured on training examples.",
            CLEAR,
            association(rows, "training_flatness", "rloss"),
        ),
        correlated(
            "flatness-gap",
            "Flatness rises with the robust generalisation gap, test minus training loss.",
            CLEAR,
            association(rows, "flatness", "gap"),
        ),
        correlated(
            "flatness-gap-given-rloss",
            "It does so among networks of equal robust loss.",
            "not claimed",
            association(rows, "flatness", "gap", given="rloss"),
            "Partial rank correlation given the test robust loss.",
        ),
        correlated(
            "training-flatness-gap",
            "Flatness on training examples alone, seen before any test, rises with the gap.",
            "not claimed",
            association(rows, "training_flatness", "gap"),
        ),
    ]


def _attack(checkpoints: Sequence[Checkpoint]) -> str:
    named = {checkpoint.attack for checkpoint in checkpoints}
    attacks = ", ".join(sorted(named))
    return f"Robust error against {attacks}; the paper takes AutoAttack (standard)."
