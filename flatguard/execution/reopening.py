"""Loads again what a run was made with, and refuses another model and other data.

A run knows its model by the hash of its weights and by its answers on the first images, and its
data by a hash of all images and labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.data.dataset import blocks
from flatguard.data.hashing import DataHash
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.errors import ModelError, UsageError
from flatguard.execution.context import EvaluationContext, resolve
from flatguard.execution.origin import BY_NAME, Origin
from flatguard.request import derive_seed
from flatguard.runs.run import Run
from flatguard.targets.first_call import model_errors
from flatguard.targets.restored import restored

_ANSWERED = 4


def reopen(run: Run, origin: Origin = BY_NAME, *, check_data: bool = False) -> EvaluationContext:
    """Load again what a run was made with.

    Args:
        run: its manifest says what to load.
        origin: the run's model and data, where they came from Python.
        check_data: read every image and compare their hash with the manifest's.

    Raises:
        UsageError: the weights or the images have changed, or they came from Python and are not
            given.
    """
    data, from_python = run.manifest.data, run.manifest.from_python
    if origin.target is None and "model" in from_python:
        raise UsageError(f"{run.storage}: its model came from Python; give it with model=...")
    if origin.dataset is None and "data" in from_python:
        raise UsageError(f"{run.storage}: its data came from Python; give it with data=...")
    context = resolve(run.request, origin.target, origin.dataset)
    check_same_model(context, run)
    if check_data and data_sha256(context) != data.sha256:
        raise UsageError(f"{data.name} has other images now than for {run.storage}")
    _check_same_examples(context, run)
    context.check_layers()
    return context


def _check_same_examples(context: EvaluationContext, run: Run) -> None:
    """Refuse a file of stored examples that has changed since the run was made."""
    known = run.manifest.attack_args.get("sha256")
    if known is not None and context.attack.effective_args().get("sha256") != known:
        raise UsageError(
            f"{run.request.attack} holds other examples now than when {run.storage} was made"
        )


def check_same_model(context: EvaluationContext, run: Run) -> None:
    """Refuse a model with other weights or other answers than the run's.

    Raises:
        UsageError: with what differs.
    """
    target = run.manifest.target
    if context.target.weights_sha256 != target.weights_sha256:
        raise UsageError(f"{target.name} has other weights now than when {run.storage} was made")
    if _has_same_images(context, run) and not target.answers_like(first_answers(context)):
        raise UsageError(
            f"{target.name} answers otherwise now than when {run.storage} was made: its weights "
            "are the same, but something else that it computes with has changed"
        )


def _has_same_images(context: EvaluationContext, run: Run) -> bool:
    """Whether the first block's images are those of the run; without them, answers say nothing."""
    plan, hashes = run.manifest.blocks[0], DataHash()
    hashes.update(context.dataset.block(plan.start, plan.stop))
    return hashes.hexdigest() == run.manifest.data.blocks[0]


@own_state()
def first_answers(context: EvaluationContext) -> tuple[tuple[float, ...], ...] | None:
    """The logits for the first images, in six digits; None if two calls do not agree.

    They tell models apart that differ in what no hash of weights covers: an attribute, a closure,
    a global variable.
    """
    images = context.dataset.block(0, min(_ANSWERED, context.count)).images.to(context.device)
    try:
        with restored(context.target.model):  # a model may remember its calls
            once, again = (_logits(context, images) for _ in range(2))
    except ModelError:  # the model may fail on a sample
        return None
    if not torch.equal(once, again) or not bool(once.isfinite().all()):
        return None
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in once.tolist())


def _logits(context: EvaluationContext, images: Tensor) -> Tensor:
    seed = derive_seed(context.request.seed, 0, "first answers")
    with (
        seeded(seed, context.device),
        model_errors(context.target.name, f"on {len(images)} images"),
        torch.no_grad(),
    ):
        logits: Tensor = context.target.model(images)
    return logits.double()


def data_sha256(context: EvaluationContext) -> str:
    """The hash of the evaluated images and labels, as in the manifest."""
    hashes = DataHash()
    for _, batch in blocks(context.dataset, context.count, context.block_size):
        hashes.update(batch)
    return hashes.hexdigest()
