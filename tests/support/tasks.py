"""Tasks that say which process carries them out."""

import os
from dataclasses import dataclass

from flatguard.execution.executors import Worker


@dataclass(frozen=True)
class WhoAmI:
    """Returns the number of its process."""

    number: int

    def carry_out(self, worker: Worker) -> int:
        return os.getpid()
