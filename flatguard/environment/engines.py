"""The options of `--engine`: other ways to compute the model that the attack searches.

Imports no torch: the request needs the names.
"""

from __future__ import annotations

from collections.abc import Sequence

from flatguard.errors import did_you_mean

FOLD_BATCHNORM = "fold-batchnorm"
CHANNELS_LAST = "channels-last"
COMPILE = "compile"
BFLOAT16 = "bfloat16"
FLOAT16 = "float16"

ENGINES = (FOLD_BATCHNORM, CHANNELS_LAST, COMPILE, BFLOAT16, FLOAT16)
"""All options, in the order in which they are applied."""


def parse_engine(given: Sequence[str]) -> tuple[str, ...]:
    """The options that are named, each once, in the order in which they are applied.

    Args:
        given: names; one text may hold several, with commas.

    Raises:
        ValueError: a name is unknown, or two precisions are named.
    """
    names = {name.strip().lower() for text in given for name in text.split(",")}
    for name in sorted(names):
        if name not in ENGINES:
            raise ValueError(
                f"expected {', '.join(ENGINES)}{did_you_mean(name, ENGINES)}, got {name!r}"
            )
    if {BFLOAT16, FLOAT16} <= names:
        raise ValueError(f"{BFLOAT16} and {FLOAT16} exclude each other, got both")
    return tuple(name for name in ENGINES if name in names)
