"""How many samples are attacked together, and when the batch is halved.

Attacks draw their random starts for a whole batch. The batch size is therefore part of a run's
identity: a run with half the batch is another run.
"""

from __future__ import annotations

from flatguard.errors import OutOfMemory
from flatguard.request import EvaluationRequest
from flatguard.runs.run import Run, load_run

_LARGEST = 128
_PIXEL_VALUES = 5_000_000
"""A batch holds about this many pixel values: 128 images at CIFAR's size, 32 at ImageNet's."""


def default_batch_size(values: int) -> int:
    """The batch size for images of this many values: a power of two, at most 128."""
    fitting = max(1, _PIXEL_VALUES // values)
    return int(min(_LARGEST, 2 ** (fitting.bit_length() - 1)))


def halve_batch(run: Run, error: BaseException) -> EvaluationRequest | None:
    """The same request with half the batch, where a run ended because memory was too small.

    Returns:
        None where the error is another one, where the batch is a single sample, and where a whole
        batch was committed before: the batch fits the memory then, and the error is raised.
    """
    size = run.request.batch_size
    if size is None or size == 1 or not isinstance(error, OutOfMemory):
        return None
    committed = [block.plan for block in load_run(run.storage).blocks]
    if any(plan.stop - plan.start == size for plan in committed):
        return None
    return run.request.model_copy(update={"batch_size": size // 2})
