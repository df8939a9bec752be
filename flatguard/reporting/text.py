"""Numbers and other people's names as they are written in reports.

Names come from files, packages and users. Markup is escaped where it is written; here what no
escaping helps against is made visible: control characters, and those that turn text round.
"""

from __future__ import annotations

import unicodedata

KEPT_CONTROLS = "\n\t"
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Unicode categories without a face of their own: controls, bidi marks, surrogates, unassigned."""

MINUS = "\N{MINUS SIGN}"


def visible(text: str) -> str:
    """The text, with every character that cannot be seen written as its number."""
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(char):04x}"
        if unicodedata.category(char) in HIDDEN and char not in KEPT_CONTROLS
        else char
        for char in text
    )


def shortened(text: str, most: int) -> str:
    """At most so many characters, for the labels of figures; a middle is left out."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def percent(share: float) -> str:
    """`0.853` as `85.3%`."""
    return f"{share:.1%}".replace("-", MINUS)


def between(interval: tuple[float, float] | list[float]) -> str:
    """An interval of shares: `73.4% to 92.9%`."""
    low, high = interval
    return f"{percent(low)} to {percent(high)}"


def number(value: float | None, digits: int = 4) -> str:
    """A number as short as it can be said; `not measured` for None and NaN."""
    if value is None or value != value:
        return "not measured"
    return f"{value:.{digits}g}".replace("-", MINUS)


def counted(count: int, one: str, more: str | None = None) -> str:
    """`1 sample`, `2 samples`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
