"""What surrounds every entry point: flatguard's own settings and random generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flatguard.environment.randomness import own_generators
from flatguard.environment.torch_state import own_state


@contextmanager
def own_process() -> Iterator[None]:
    """Compute as in a new process; the caller's settings and random generators are restored.

    Also a decorator. For entry points: code inside them uses `own_state` and `seeded`.
    """
    with own_state(), own_generators():
        yield
