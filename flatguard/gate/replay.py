"""Whether a kept run still tells the truth about a model: its images are shown to it once more."""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.environment.randomness import seeded
from flatguard.execution.context import EvaluationContext
from flatguard.geometry.decision import cross_entropy, margin
from flatguard.request import derive_seed
from flatguard.runs.check_evidence import load_fooled, load_probes
from flatguard.runs.run import Run
from flatguard.targets.target import model_errors

SAMPLES = 256
RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Of the largest logit in a row: what is left of a difference of two of them after rounding."""


def unlike(context: EvaluationContext, run: Run) -> str | None:
    """What the model does otherwise than when the run was made; None if nothing was seen.

    Whole blocks are shown, as they were, until there are 256 samples, clean and adversarial.
    """
    shown, steady = 0, True
    for block in run.blocks:
        if shown >= SAMPLES:
            break
        if block.failures:
            continue  # the model raises on one of its samples
        plan = block.plan
        batch = context.dataset.block(plan.start, plan.stop)
        for which, images, seed in (
            ("clean", batch.images, derive_seed(context.request.seed, plan.index, "clean")),
            (
                "adv",
                run.adversarial(plan.index),
                derive_seed(context.request.seed, plan.index, "check"),
            ),
        ):
            logits = _logits(context, images, seed)
            if not _alike(run, plan.start, which, logits, batch.labels):
                name = "clean" if which == "clean" else "adversarial"
                return f"it answers otherwise on the {name} images of block {plan.index}"
            steady = steady and torch.equal(logits, _logits(context, images, seed + 1))
        shown += len(batch)
    return _fooled_no_more(context, run) if steady else None


def _logits(context: EvaluationContext, images: Tensor, seed: int) -> Tensor:
    where = "when a kept run is shown to it again"
    with torch.no_grad(), seeded(seed, context.device), model_errors(context.target.name, where):
        logits: Tensor = context.target.model(images.to(context.device))
    return logits.detach().cpu().double()


def _slack(logits: Tensor) -> Tensor:
    return RELATIVE * logits.abs().amax(dim=1) + ABSOLUTE


def _alike(run: Run, start: int, which: str, logits: Tensor, labels: Tensor) -> bool:
    """Whether loss, margin and prediction are what the run has, up to rounding."""
    rows = run.samples.iloc[start : start + len(labels)]
    known, slack = logits.isfinite().all(dim=1), _slack(logits)
    for name, measured in (
        ("loss", cross_entropy(logits, labels)), ("margin", margin(logits, labels)),
    ):  # fmt: skip
        stored = torch.tensor(
            rows[f"{which}_{name}"].to_numpy(dtype="float64", na_value=float("nan"))
        )
        if not torch.equal(stored.isfinite(), known & measured.isfinite()):
            return False
        far = (stored - measured).abs() > slack + RELATIVE * stored.abs()
        if bool((far & known).any()):
            return False
    said = torch.tensor(rows[f"{which}_prediction"].to_numpy(dtype="int64", na_value=-1))
    chosen = logits.gather(1, said.clamp(min=0)[:, None])[:, 0]
    return not bool((known & (logits.amax(dim=1) - chosen > slack)).any())


def _fooled_no_more(context: EvaluationContext, run: Run) -> str | None:
    """Examples that fooled the model have to do so still; not asked of a model that rolls dice."""
    for name in sorted(load_probes(run)):
        kept = dict(list(load_fooled(run, name).items())[:SAMPLES])
        if not kept:
            continue
        labels = run.samples.set_index("sample")["label"].loc[list(kept)]
        logits = _logits(context, torch.stack(list(kept.values())), 0)
        left = margin(logits, torch.tensor(labels.to_numpy(dtype="int64")))
        if bool((left > _slack(logits)).any()):
            return f"examples of the probe {name} fool it no more"
    return None
