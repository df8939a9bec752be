"""What decides a run's result: requests of the same identity have the same result.

The identity holds the request, the weights, the code, the data and the versions. A value that none
of them shows, such as one in an attribute, a closure or a global variable, shows in the model's
answers: `fingerprint` compares them on all images of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flatguard.environment.randomness import seeded
from flatguard.execution.context import EvaluationContext
from flatguard.execution.reopening import data_sha256
from flatguard.execution.software import versions
from flatguard.gate.code import source_files
from flatguard.request import derive_seed
from flatguard.runs.check_evidence import load_fooled, load_probes
from flatguard.runs.checksums import sha256
from flatguard.runs.facts import digest
from flatguard.runs.run import Run
from flatguard.targets.first_call import model_errors


def identity_of(context: EvaluationContext) -> dict[str, Any]:
    """Everything that a run's result depends on, as JSON holds it.

    Paths are not a part of it: the identity has hashes of the files' contents.
    """
    request, model = context.request, context.target.model
    arguments = context.attack.effective_args()
    files = source_files(model, request.arch)
    first = context.dataset.block(0, min(context.count, context.block_size))
    return {
        "request": {
            **request.that_decide("evidence", "probes"),
            "attack_args": {name: repr(value) for name, value in arguments.items()},
            "surrogates": [_content(name) for name in request.surrogates],
        },
        "weights": context.target.weights_sha256,
        "code": digest([repr(model), sorted(sha256(file) for file in files)]),
        "answers": _answers(context, first.images, first.labels),
        "data": data_sha256(context),
        "versions": versions(),
    }


def fingerprint(context: EvaluationContext, run: Run) -> str:
    """SHA-256 of the model's answers on all images of a run.

    They are the clean images, the adversarial ones, the points halfway between, and the examples
    that fooled the model during the checks.
    """
    parts = [_answers(context, *batch) for batch in _images(context, run)]
    return digest(parts)


def _images(context: EvaluationContext, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels, in batches as they were attacked."""
    labels = torch.tensor(run.samples["label"].to_numpy("int64"))
    numbers = {sample: row for row, sample in enumerate(run.samples["sample"])}
    start = 0
    for block in run.blocks:
        clean, adversarial = run.clean(block.plan.index), run.adversarial(block.plan.index)
        ours = labels[start : start + len(clean)]
        start += len(clean)
        if not block.failures:  # the model raises on one of these samples
            for images in (clean, (clean + adversarial) / 2, adversarial):
                yield images, ours
    for name in sorted(load_probes(run)):
        fooled = load_fooled(run, name)
        if fooled:
            rows = [numbers[sample] for sample in fooled]
            images = torch.stack(list(fooled.values()))
            size = run.request.batch_size
            size = size if isinstance(size, int) else len(images)
            yield from zip(images.split(size), labels[rows].split(size), strict=True)


def _answers(context: EvaluationContext, images: Tensor, labels: Tensor) -> str:
    """SHA-256 of the logits, and of the loss's gradients in the images."""
    inputs, answers = images.to(context.device).requires_grad_(True), hashlib.sha256()
    with (
        seeded(derive_seed(context.request.seed, 0, "answers"), context.device),
        model_errors(context.target.name, f"on {len(images)} images"),
        torch.enable_grad(),
    ):
        logits = context.target.model(inputs)
        answers.update(logits.detach().cpu().numpy().tobytes())
        if logits.requires_grad:
            loss = F.cross_entropy(logits, labels.to(context.device), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
            if gradient is not None:
                answers.update(gradient.cpu().numpy().tobytes())
    return answers.hexdigest()


def _content(name: str) -> str:
    """The hash of a file, or the name of something that is no file."""
    return sha256(Path(name)) if Path(name).is_file() else name
