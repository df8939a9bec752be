"""Who watches a run: a progress bar, or nobody."""

from __future__ import annotations

from typing import Protocol


class ProgressReporter(Protocol):
    """Who watches a run: a progress bar, or nobody."""

    def log(self, line: str) -> None:
        """A line for a person."""

    def stage(self, name: str, total: int, calls_each: int | None = None) -> None:
        """A stage of `total` samples begins; each takes about `calls_each` model calls."""

    def advanced(self, samples: int) -> None:
        """That many samples are done."""

    def called(self, rows: int) -> None:
        """The model was called on that many rows."""


class Silent:
    """An observer who looks away."""

    def log(self, line: str) -> None:
        """Nothing."""

    def stage(self, name: str, total: int, calls_each: int | None = None) -> None:
        """Nothing."""

    def advanced(self, samples: int) -> None:
        """Nothing."""

    def called(self, rows: int) -> None:
        """Nothing."""
