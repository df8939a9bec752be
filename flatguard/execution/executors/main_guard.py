"""Finds a script without `if __name__ == "__main__":`, which every worker would run again.

A worker is a new process, which imports the script that started it. Where the evaluation is not
behind that line, the worker begins it once more; it leaves a note for its parent and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flatguard.errors import UsageError

_NOTE = "_FLATGUARD_MAIN_GUARD"
"""The environment variable with the file of the note."""


@dataclass(frozen=True)
class MainGuard:
    """The note that a worker leaves."""

    note: Path

    def check(self) -> None:
        """Raise if a worker has left the note.

        Raises:
            UsageError: with the line that the script lacks.
        """
        if self.note.exists():
            raise UsageError(
                "every worker runs this script again, because it starts the evaluation when it is "
                'imported; put the call behind the line: if __name__ == "__main__":'
            )


@contextmanager
def main_guard() -> Iterator[MainGuard]:
    """Workers that are started within it leave a note if they import such a script."""
    before = os.environ.get(_NOTE)
    with tempfile.TemporaryDirectory(prefix="flatguard-") as folder:
        guard = MainGuard(Path(folder, "imported"))
        os.environ[_NOTE] = str(guard.note)
        try:
            yield guard
        finally:
            if before is None:
                del os.environ[_NOTE]
            else:
                os.environ[_NOTE] = before


def end_if_imported() -> None:
    """End this process where it is a worker that still imports its parent's script."""
    note = os.environ.get(_NOTE)
    importing = getattr(multiprocessing.current_process(), "_inheriting", False)
    if note is not None and importing:
        Path(note).touch()
        os._exit(1)
