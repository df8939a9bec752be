"""Checkpoints to run folders: robust error by the audited attack, then flatness.

A measured checkpoint is not measured again: a stopped command continues where it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flatguard.checks.context import CheckContext
from flatguard.checks.weight_space.flatness import Neighbourhood
from flatguard.checks.weight_space.measure import Part, add_weight_flatness, own_part
from flatguard.checks.weight_space.robust_loss import Ascent
from flatguard.data.dataset import Dataset
from flatguard.environment.caller import own_process
from flatguard.errors import UsageError
from flatguard.execution.context import EvaluationContext
from flatguard.execution.missing_blocks import attack_without_checks
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.reopening import check_same_model, data_sha256
from flatguard.geometry.ball import SEARCHED
from flatguard.runs.run import Run, load_run

_STOPPING_STEPS = 7
"""PGD-7 chooses the epoch, as in Section 3."""


@dataclass(frozen=True)
class Plan:
    """What is measured on every checkpoint; the defaults are the paper's.

    Attributes:
        around: the perturbed models.
        steps, restarts: of the attack that finds robust losses.
        training: training samples, for the gap and Figure 7.
        held_out: samples that choose an epoch to stop at.

    Raises:
        UsageError: a radius is not positive and finite.
    """

    around: Neighbourhood = field(default_factory=Neighbourhood)
    steps: int = 20
    restarts: int = 10
    training: Dataset | None = None
    held_out: Dataset | None = None

    def __post_init__(self) -> None:
        for option, radius in (("--xi", self.around.xi), ("--worst-xi", self.around.worst_xi)):
            if not 0 < radius < math.inf:
                raise UsageError(f"{option}: expected a positive number, got {radius:g}")


@own_process()
def measure_checkpoint(
    context: EvaluationContext,
    out: Path,
    plan: Plan,
    progress: ProgressReporter,
    command: Sequence[str],
) -> Run:
    """The run of one checkpoint with everything that the plan names.

    Args:
        context: the checkpoint with its data and the attack that the robust error is against.
        out: the folder that runs are kept in.
        plan: what is measured in addition.
        progress: receives progress updates.
        command: the command line, for the manifest.

    Raises:
        UsageError: its folder holds a run of other weights, data or settings; or a norm in which
            robust losses are not searched.
    """
    budget = context.attack.budget
    if budget.norm not in SEARCHED or budget.eps is None:
        raise UsageError(f"robust losses are searched in {', '.join(SEARCHED)}, not {budget.norm}")
    path = out / _folder_name(context)
    if path.exists():
        run = load_run(path)
        _refuse_other(run, context)
        check_same_model(context, run)
    else:
        run = attack_without_checks(context, path, command, progress)
    checks = CheckContext(context, run, progress)
    ascent = Ascent(budget.eps, budget.norm, plan.steps, plan.restarts)
    add_weight_flatness(checks, own_part(checks), ascent, plan.around)
    if plan.training is not None:
        around = replace(plan.around, worst_restarts=0)
        count = min(context.count, len(plan.training))
        add_weight_flatness(checks, Part("training", plan.training, count), ascent, around)
    if plan.held_out is not None:
        chooses = replace(ascent, steps=_STOPPING_STEPS, restarts=1)
        part = Part("held-out", plan.held_out, len(plan.held_out))
        add_weight_flatness(checks, part, chooses, Neighbourhood(directions=0, worst_restarts=0))
    return run


def _folder_name(context: EvaluationContext) -> str:
    """`awp-0.01-s0-epoch-080`: the checkpoint's folder and name."""
    model = Path(context.request.model)
    parts = [part for part in (model.parent.name, model.stem) if part]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))


def _refuse_other(run: Run, context: EvaluationContext) -> None:
    """Raise if the folder holds another evaluation or an incomplete one."""
    facts, request = run.manifest, run.request
    pairs = {
        "weights": (facts.target.weights_sha256, context.target.weights_sha256),
        "data": (facts.data.sha256, data_sha256(context)),
        "attack": (request.attack, context.request.attack),
        "attack arguments": (request.attack_args, context.request.attack_args),
        "budget": (request.budget(), context.request.budget()),
        "seed": (request.seed, context.request.seed),
    }
    other = [name for name, (there, here) in pairs.items() if there != here]
    if other or not run.complete:
        why = f"is of other {' and '.join(other)}" if other else "is incomplete"
        raise UsageError(f"{run.path} {why}; name another folder with --out, or delete it")
