"""Numbers and names as reports write them.

Names come from files, packages and users. Templates escape markup. `visible` shows what escaping
does not help against: control characters and characters that reverse the direction of text.
"""

from __future__ import annotations

from flatguard.errors import shortened as shortened
from flatguard.errors import visible as visible

MINUS = "\N{MINUS SIGN}"


def percent(share: float) -> str:
    """`0.853` as `85.3%`."""
    return f"{share:.1%}".replace("-", MINUS)


def between(interval: tuple[float, float] | list[float] | None) -> str:
    """An interval of shares: `73.4% to 92.9%`; `not measured` for None."""
    if interval is None:
        return "not measured"
    low, high = interval
    return f"{percent(low)} to {percent(high)}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with this many significant digits; `not measured` for None and NaN."""
    if value is None or value != value:
        return "not measured"
    return f"{value:.{digits}g}".replace("-", MINUS)


def counted(count: int, singular: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{count:,} {singular if count == 1 else singular + 's'}"
