"""How many samples are attacked together, how that is found, and when the batch is halved.

Attacks draw their random starts for a whole batch. The batch size is therefore part of a run's
identity: a run with half the batch is another run.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from flatguard.data.dataset import Dataset
from flatguard.environment.randomness import seeded
from flatguard.errors import OutOfMemory, memory_errors
from flatguard.option_values import AUTO
from flatguard.request import EvaluationRequest
from flatguard.runs.run import Run, load_run
from flatguard.targets import Target
from flatguard.targets.first_call import model_errors
from flatguard.targets.restored import restored

_LARGEST = 128
_FIRST, _MOST, _WORTH = 8, 1024, 0.95
_PIXEL_VALUES = 5_000_000
"""A batch holds about this many pixel values: 128 images at CIFAR's size, 32 at ImageNet's."""


def default_batch_size(values: int) -> int:
    """The batch size for images of this many values: a power of two, at most 128."""
    fitting = max(1, _PIXEL_VALUES // values)
    return int(min(_LARGEST, 2 ** (fitting.bit_length() - 1)))


def batch_size_for(
    wanted: int | str | None, target: Target, dataset: Dataset, count: int, device: torch.device
) -> int:
    """The batch size of a resolved request.

    Args:
        wanted: a number; `auto` measures it; None takes the default for images of this size.
        target: prepared, on the device.
        dataset: its first images are shown to the target where the size is measured.
        count: the number of samples.
        device: where everything is computed.
    """
    if isinstance(wanted, int):
        return wanted
    if wanted == AUTO:
        return _fastest(target, dataset, count, device)
    return default_batch_size(dataset.block(0, 1).images[0].numel())


def _fastest(target: Target, dataset: Dataset, count: int, device: torch.device) -> int:
    """The power of two, at most 1,024, from which on a larger batch saves less than 5% a sample.

    It ends, too, where memory runs out and where all samples are in one batch. The clock decides,
    so that another time may find another size; the manifest has the one that was taken.

    Cost: about a dozen passes forward and backward, of which the last batch takes the most.
    """
    best, least, size = 1, float("inf"), min(_FIRST, count)
    with restored(target.model), seeded(0, device):
        while True:
            images = dataset.block(0, size).images.to(device)
            try:
                with memory_errors(f"{target.name} on {size} images at once"):
                    seconds = min(_pass_seconds(target, images) for _ in range(3)) / size
            except OutOfMemory:
                return best
            if seconds > _WORTH * least:
                return best
            best, least = size, seconds
            if size >= min(count, _MOST):
                return best
            size = min(2 * size, count)


def _pass_seconds(target: Target, images: Tensor) -> float:
    """The seconds of one pass forward and, where the model has gradients, backward."""
    began = _now(images.device)
    with model_errors(target.name, f"on {len(images)} images at once"), torch.enable_grad():
        inputs = images.clone().requires_grad_()
        logits = target.model(inputs)
        if logits.requires_grad:
            torch.autograd.grad(logits.logsumexp(dim=1).sum(), inputs, allow_unused=True)
    return _now(images.device) - began


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def halve_batch(run: Run, error: BaseException) -> EvaluationRequest | None:
    """The same request with half the batch, where a run ended because memory was too small.

    Returns:
        None where the error is another one, where the batch is a single sample, and where a whole
        batch was committed before: the batch fits the memory then, and the error is raised.
    """
    size = run.request.batch_size
    if not isinstance(size, int) or size == 1 or not isinstance(error, OutOfMemory):
        return None
    committed = [block.plan for block in load_run(run.storage).blocks]
    if any(plan.stop - plan.start == size for plan in committed):
        return None
    return run.request.model_copy(update={"batch_size": size // 2})
