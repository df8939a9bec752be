"""How many classes an attack needs, the same for every library that ships it."""

from __future__ import annotations

from flatguard.errors import AttackError

DLR, TARGETED_DLR = 3, 4
"""The DLR loss reads the third-largest logit; the targeted one also reads the fourth."""


def check_dlr(name: str, num_classes: int, *, targeted: bool) -> None:
    """Refuse an attack with a DLR loss on a model of too few classes.

    Raises:
        AttackError: with the attacks that take any number of classes.
    """
    needed = TARGETED_DLR if targeted else DLR
    if num_classes < needed:
        raise AttackError(
            f"{name} uses a DLR loss that needs {needed} classes, the model has {num_classes}; "
            "use apgd-ce, fab or square"
        )


def check_count(name: str, num_classes: int, needed: int) -> None:
    """Refuse an attack that takes a class which the model does not have.

    Raises:
        AttackError: with what the attack needs.
    """
    if num_classes < needed:
        raise AttackError(
            f"{name} needs {needed} classes, the model has {num_classes}; use "
            "torchattacks:OnePixel or torchattacks:Pixle"
        )
