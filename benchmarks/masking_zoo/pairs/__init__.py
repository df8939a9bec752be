"""The catalogue. Families are what was built; labels are what `reference.py` measures."""

from __future__ import annotations

from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs.bumpy import BUMPY
from benchmarks.masking_zoo.pairs.features import FEATURES
from benchmarks.masking_zoo.pairs.heads import HEADS
from benchmarks.masking_zoo.pairs.honest import HONEST
from benchmarks.masking_zoo.pairs.hooked import HOOKED_AND_HASHED
from benchmarks.masking_zoo.pairs.randomised import RANDOM
from benchmarks.masking_zoo.pairs.remembering import REMEMBERING
from benchmarks.masking_zoo.pairs.saturated import SATURATED
from benchmarks.masking_zoo.pairs.searching import SEARCHING
from benchmarks.masking_zoo.pairs.switches import LOOK_ALIKES, SWITCHED
from benchmarks.masking_zoo.pairs.without_gradient import WITHOUT_GRADIENT

CATALOGUE: tuple[Pair, ...] = (
    *HONEST, *SATURATED, *WITHOUT_GRADIENT, *BUMPY, *RANDOM, *FEATURES, *HEADS, *SEARCHING,
    *REMEMBERING, *HOOKED_AND_HASHED, *SWITCHED, *LOOK_ALIKES,
)  # fmt: skip


def find(name: str) -> Pair:
    """A pair by its name."""
    return next(found for found in CATALOGUE if found.name == name)
