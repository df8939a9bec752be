"""What decides a run's result, as one key: weights, code, data, request and versions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from flatguard.environment.randomness import seeded
from flatguard.execution.context import FIRST_LOOK, EvaluationContext, data_sha256
from flatguard.execution.software import versions
from flatguard.gate.code import module_files, with_imports
from flatguard.gate.state import State, files_of
from flatguard.request import derive_seed
from flatguard.runs.checksums import sha256
from flatguard.targets.target import model_errors


def content_of(context: EvaluationContext) -> dict[str, Any]:
    """Everything that a run's result depends on, as JSON can hold it."""
    return {
        "weights": context.target.weights_sha256,
        "code": _code(context.target.model, context.request.arch),
        "behaviour": _behaviour(context),
        "data": data_sha256(context),
        "request": context.request.that_decide("evidence"),
        "attack_args": {
            name: repr(value) for name, value in context.attack.effective_args().items()
        },
        "checks": context.request.checks,
        "surrogates": [_surrogate(name) for name in context.request.surrogates],
        "versions": versions(),
    }


def key_of(content: dict[str, Any]) -> str:
    """SHA-256 of it, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _code(model: nn.Module, arch: str | None) -> str:
    """The model's structure, what its modules hold, and the files that it is written in.

    Weights do not say what is done with them: a rounding in `forward` has none, a threshold in an
    attribute or in a module that `forward` imports neither.
    """
    state = State()
    held = state.of(model)
    files = files_of(type(module) for module in model.modules()) | state.files
    if arch is not None:
        named = arch.rpartition(":")[0]
        files |= {Path(named)} if named.endswith(".py") else set(module_files(named, Path()))
    parts = [sha256(file) for file in with_imports(files)]
    words = json.dumps([repr(model), held, sorted(parts)])
    return hashlib.sha256(words.encode()).hexdigest()


def _surrogate(name: str) -> str:
    """A file is its bytes; a name is a name."""
    return sha256(Path(name)) if Path(name).is_file() else name


def _behaviour(context: EvaluationContext) -> str:
    """Logits and input gradients on the first images: code that no file shows acts there."""
    batch = context.dataset.block(0, min(context.count, context.block_size, FIRST_LOOK))
    images, labels = (
        batch.images.to(context.device).requires_grad_(True),
        batch.labels.to(context.device),
    )
    digest = hashlib.sha256()
    with (
        seeded(derive_seed(context.request.seed, 0, "behaviour"), context.device),
        model_errors(context.target.name, f"on {len(images)} images"),
        torch.enable_grad(),
    ):
        logits = context.target.model(images)
        digest.update(logits.detach().cpu().numpy().tobytes())
        if logits.requires_grad:
            loss = F.cross_entropy(logits, labels)
            (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
            if gradient is not None:
                digest.update(gradient.cpu().numpy().tobytes())
    return digest.hexdigest()
