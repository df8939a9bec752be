"""What needs the `detection` extra says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flatguard.errors import EnvironmentProblem


@contextmanager
def detection_extra(what: str) -> Iterator[None]:
    """Turn a failed import into the command that mends it."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentProblem(
            f"{what} needs {error.name}; install it with: pip install 'flatguard[detection]'"
        ) from error
