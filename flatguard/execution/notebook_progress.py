"""Progress in a notebook: the lines of a run and a bar, in one output that is updated in place.

It needs nothing but IPython, which every notebook has; widgets are an extra that many lack.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

from flatguard.errors import visible
from flatguard.execution.progress import ProgressReporter, Silent

_EVERY = 0.25
"""Seconds between two updates of the bar; each is a message to the browser."""


def default_progress() -> ProgressReporter:
    """A bar where a notebook runs this, else silence."""
    display = _display()
    return Silent() if display is None else NotebookProgress(display)


def _display() -> Callable[..., Any] | None:
    """IPython's `display` in the kernel of a notebook; None in a terminal and elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display  # type: ignore[no-any-return]


class NotebookProgress:
    """A progress reporter that shows lines and a bar in a cell's output.

    Args:
        display: IPython's.
    """

    def __init__(self, display: Callable[..., Any]):
        self._lines: list[str] = []
        self._name, self._unit = "", "images"
        self._samples = self._total = self._rows = 0
        self._calls_each: int | None = None
        self._shown = 0.0
        self._display = display
        self._handle: Any = None  # of the output, from the first line on

    def log(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)
        self._show()

    def stage(
        self, name: str, total: int, calls_each: int | None = None, unit: str = "images"
    ) -> None:
        """Start the bar of another stage."""
        self._name, self._total, self._calls_each, self._unit = name, total, calls_each, unit
        self._samples = self._rows = 0
        self._show()

    def advanced(self, samples: int) -> None:
        """Count finished samples."""
        self._samples += samples
        self._rows = self._samples * (self._calls_each or 0)
        self._show(soon=self._samples < self._total)

    def called(self, rows: int) -> None:
        """Count rows that the model was called on."""
        self._rows += rows
        self._show(soon=True)

    def _show(self, soon: bool = False) -> None:
        """Update the output; one that is followed `soon` may be left out."""
        now = time.monotonic()
        if soon and now - self._shown < _EVERY:
            return
        self._shown, html = now, _Html(self._html())
        if self._handle is None:
            self._handle = self._display(html, display_id=True)
        else:
            self._handle.update(html)

    def _html(self) -> str:
        lines = "".join(f"<div>{escape(visible(line))}</div>" for line in self._lines)
        return f"<div>{lines}{self._bar()}</div>"

    def _bar(self) -> str:
        """The stage's bar; nothing before the first stage and once the stage is done."""
        if not self._name or self._samples >= self._total:
            return ""
        steps = self._total * (self._calls_each or 1)
        done = min(self._rows if self._calls_each else self._samples, steps - 1)
        value = f' value="{done}"' if done or self._calls_each else ""
        return (
            f'<div>{escape(visible(self._name))} <progress max="{steps}"{value}></progress> '
            f"{self._samples}/{self._total} {escape(self._unit)}</div>"
        )


class _Html:
    """HTML that IPython shows."""

    def __init__(self, html: str):
        self._html = html

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return "progress"
