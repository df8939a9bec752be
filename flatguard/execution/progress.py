"""Progress reporters: what receives the messages and the progress of a run."""

from __future__ import annotations

from typing import Protocol


class ProgressReporter(Protocol):
    """Receives the progress of a run, such as a progress bar does."""

    def log(self, line: str) -> None:
        """Receive a message for the user."""

    def stage(
        self, name: str, total: int, calls_each: int | None = None, unit: str = "images"
    ) -> None:
        """A stage of `total` samples begins; each takes about `calls_each` model calls.

        `unit` is what a sample is called.
        """

    def advanced(self, samples: int) -> None:
        """This many more samples are done."""

    def called(self, rows: int) -> None:
        """The model was called on this many rows."""


class Silent:
    """Ignores all progress."""

    def log(self, line: str) -> None:
        """Ignore a message."""

    def stage(
        self, name: str, total: int, calls_each: int | None = None, unit: str = "images"
    ) -> None:
        """Ignore the start of a stage."""

    def advanced(self, samples: int) -> None:
        """Ignore finished samples."""

    def called(self, rows: int) -> None:
        """Ignore a model call."""
