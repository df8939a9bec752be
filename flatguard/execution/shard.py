"""A shard: the part of a run's blocks that one machine attacks."""

from __future__ import annotations

from dataclasses import dataclass

from flatguard.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Every `count`-th block, starting with the `number`-th; numbers begin at 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`.

        Raises:
            UsageError: the text has another form.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"--shard: expected I/N with I from 1 to N, such as 2/8, got {text!r}")
        return cls(int(number), int(count))

    def has(self, block: int) -> bool:
        """Whether a block belongs to this shard."""
        return block % self.count == self.number - 1
