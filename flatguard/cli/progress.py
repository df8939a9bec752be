"""Progress of a run in the terminal: lines on stdout, and a bar on stderr if it is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flatguard.reporting.text import visible


class Watcher:
    """A progress reporter that prints lines, and a bar on a terminal's stderr."""

    def __init__(self, quiet: bool = False, to_stderr: bool = False):
        self._lines = None if quiet else Console(stderr=to_stderr, soft_wrap=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._samples = self._total = self._rows = 0
        self._calls_each: int | None = None
        self._unit = "images"

    def __enter__(self) -> Watcher:
        if not self._progress.disable:  # rich before 14.3 prints an empty line at the end
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._progress.disable:
            self._progress.stop()

    def log(self, line: str) -> None:
        """Print a line."""
        if self._lines is None:
            return
        on_bar = self._lines.is_terminal and not self._progress.disable
        # Two consoles on one terminal would write into each other's lines.
        console = self._progress.console if on_bar else self._lines
        console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def stage(
        self, name: str, total: int, calls_each: int | None = None, unit: str = "images"
    ) -> None:
        """Start a new bar; without `calls_each` it pulses until the first samples are done."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._samples, self._rows, self._total, self._calls_each = 0, 0, total, calls_each
        self._unit = unit
        self._task = self._progress.add_task(name, total=None, detail="")
        self._show()

    def advanced(self, samples: int) -> None:
        """Count finished samples."""
        self._samples += samples
        self._rows = self._samples * (self._calls_each or 0)
        self._show()

    def called(self, rows: int) -> None:
        """Count rows that the model was called on."""
        self._rows += rows
        self._show()

    def _show(self) -> None:
        if self._task is None:
            return
        detail = f"{self._samples}/{self._total} {self._unit}"
        if self._calls_each:
            total = float(self._total * self._calls_each)
            done = min(self._rows, total - 1 if self._samples < self._total else total)
        else:
            total, done = float(self._total), float(self._samples)
        pulsing = not self._calls_each and self._samples == 0
        self._progress.update(
            self._task, total=None if pulsing else total, completed=done, detail=detail
        )


@contextlib.contextmanager
def watching(quiet: bool, as_json: bool) -> Iterator[Watcher]:
    """A progress reporter for a command; under --json everything but the one object goes to stderr.

    This includes what the user's model or architecture prints.
    """
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with aside, Watcher(quiet=quiet, to_stderr=as_json) as watcher:
        yield watcher
