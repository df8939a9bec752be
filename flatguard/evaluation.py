"""`evaluate()`: from a spec to a finished run with its summary.

What the command line, the pytest plugin and notebooks call.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatguard import job, runner
from flatguard.errors import UsageError
from flatguard.runs import store
from flatguard.runs.spec import RunSpec, make_spec
from flatguard.targets.checkpoint import SUFFIXES, Program
from flatguard.targets.datasets import ArrayDataset, Dataset
from flatguard.targets.target import Target, make_target

REPORTS = Path("reports")
CONFIDENCE_LEVEL = 0.95


def evaluate(
    model: str | nn.Module | Target,
    attack: str,
    *,
    data: tuple[Tensor, Tensor] | str | None = None,
    out: str | Path | None = None,
    observer: runner.Observer | None = None,
    command: Sequence[str] = (),
    **fields: Any,
) -> store.Run:
    """Attack a model, record it, measure again, and keep everything in a run folder.

    Args:
        model: a name or path as on the command line, a module that takes images in [0, 1],
            or a Target.
        attack: `apgd-ce`, `torchattacks:PGD`, `foolbox:LinfPGD`, ...
        data: a pair of images in [0, 1] and labels, or a data set's name; None means the
            model's own.
        out: the run folder; None names a new one under `reports/`.
        observer: is told of the progress; None is silent.
        command: what the manifest says was typed.
        **fields: the remaining fields of `RunSpec`, such as `eps="8/255"`, `attack_args`,
            `n_examples`, `batch_size`, `device`, `seed`.

    Returns:
        The run; `run.summary` holds the numbers, `run.samples` and `run.trajectory` the tables.

    Raises:
        FlatguardError: one of its kinds, with one line that says what to do.

    Example:
        >>> run = flatguard.evaluate("demo", "torchattacks:FGSM")  # doctest: +SKIP
        >>> run.summary["robust_accuracy"]  # doctest: +SKIP
        0.25
    """
    observer = observer or runner.Silent()
    target = _target(model)
    dataset = _dataset(data)
    spec = make_spec(
        model=target.name if target else model,
        attack=attack,
        dataset=data if isinstance(data, str) else None,
        **fields,
    )
    began = time.perf_counter()
    path = Path(out) if out is not None else default_folder(spec)
    store.check_new(path)
    resolved = job.resolve(spec, target, dataset)
    observer.said(job.describe(resolved))
    for note in resolved.target.notes:
        observer.said(note)
    if resolved.target.head is None:
        observer.said(f"κ is not measured: {resolved.target.head_reason}")
    run = runner.run(resolved, path, command, observer)
    summary = summarise(run, time.perf_counter() - began)
    store.write_text(run.path / "summary.json", json.dumps(summary, indent=2, allow_nan=False))
    return run


def default_folder(spec: RunSpec) -> Path:
    """`reports/20260102-030405-demo-apgd-ce`, with a number behind it where that is taken."""
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(spec.model)
    model = path.stem if path.suffix in SUFFIXES else spec.model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{moment}-{model}-{spec.attack}")
    candidates = [REPORTS / name, *(REPORTS / f"{name}-{i}" for i in range(2, 100))]
    return next(path for path in candidates if not path.exists())


def summarise(run: store.Run, seconds: float) -> dict[str, Any]:
    """The numbers that `--json` prints, from the evidence alone but for `seconds`."""
    spec, samples = run.spec, run.samples
    n, robust = len(samples), int(samples["robust"].sum())
    survived_clean = int(samples["clean_correct"].sum())
    return {
        "model": run.manifest.target.name,
        "attack": spec.attack,
        "norm": spec.norm,
        "eps": spec.budget().eps,
        "n_examples": n,
        "clean_accuracy": survived_clean / n,
        "clean_interval": interval(survived_clean, n),
        "robust_accuracy": robust / n,
        "robust_interval": interval(robust, n),
        "confidence_level": CONFIDENCE_LEVEL,
        "median_log_kappa_clean": _finite(samples["clean_log_kappa"].median()),
        "median_log_kappa_adversarial": _finite(samples["adv_log_kappa"].median()),
        "outside_budget": int((~samples["admissible"]).sum()),
        "sample_forwards": sum(block.sample_forwards for block in run.blocks),
        "sample_backwards": sum(block.sample_backwards for block in run.blocks),
        "rows_unassigned": sum(block.rows_unassigned for block in run.blocks),
        "warnings": _warnings(run),
        "adversarial_sha256": run.adversarial_sha256(),
        "seconds": round(seconds, 3),
        "attack_seconds": round(run.seconds("attack"), 3),
        "run": str(run.path),
    }


def _warnings(run: store.Run) -> list[str]:
    """What the attack's library warned of, and calls on which the model gave no numbers."""
    found = {f"{run.spec.attack}: {text}" for block in run.blocks for text in block.warnings}
    for block in run.blocks:
        if block.first_nonfinite is not None:
            found.add(
                f"the model gave NaN or infinite logits from call {block.first_nonfinite} on "
                f"(samples {block.plan.start} to {block.plan.stop - 1})"
            )
    return sorted(found)


def interval(successes: int, trials: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95% interval of a proportion."""
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(CONFIDENCE_LEVEL, method="exact")
    return float(found.low), float(found.high)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _target(model: str | nn.Module | Target) -> Target | None:
    if isinstance(model, Target):
        return model
    if isinstance(model, torch.jit.ScriptModule):
        model = Program(model).train(model.training)  # hooks cannot sit on the script itself
    if isinstance(model, nn.Module):
        return make_target(model, type(model).__name__, "a module from Python")
    if not isinstance(model, str):
        raise UsageError(
            f"model: expected a name, a path, a module or a Target, got {type(model).__name__}"
        )
    return None


def _dataset(data: tuple[Tensor, Tensor] | str | None) -> Dataset | None:
    if data is None or isinstance(data, str):
        return None
    if not isinstance(data, tuple) or len(data) != 2:
        raise UsageError("data: expected a data set's name or a pair of images and labels")
    images, labels = data
    numbers = labels if hasattr(labels, "shape") else np.asarray(labels)
    return ArrayDataset(images, numbers, "images from Python")
