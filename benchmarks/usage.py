"""The peak resident size of this process."""

from __future__ import annotations

import sys


def peak_bytes() -> int:
    """In bytes, as the system counts it."""
    if sys.platform == "win32":
        raise SystemExit("this benchmark needs Linux or macOS")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
