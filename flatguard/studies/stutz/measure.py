"""Checkpoints to run folders: robust error by the audited attack, then flatness as probes.

A checkpoint that was measured stays measured: a stopped command goes on where it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flatguard.checks.context import CheckContext
from flatguard.checks.weight_space.flatness import Neighbourhood
from flatguard.checks.weight_space.measure import Part, add_weight_flatness, own_part
from flatguard.checks.weight_space.robust_loss import Ascent
from flatguard.data.dataset import Dataset
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError
from flatguard.execution.context import EvaluationContext, data_sha256
from flatguard.execution.missing_blocks import attack_without_checks
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.ball import SEARCHED
from flatguard.runs.run import Run, load_run

STOPPING = Ascent(0.0, steps=7, restarts=1)
"""What chooses an epoch: PGD-7, as in Section 3. Its radius is the run's."""

TEST_ONLY = Neighbourhood(directions=0, worst_restarts=0)


@dataclass(frozen=True)
class Plan:
    """What is measured on every checkpoint; the defaults are the paper's.

    Attributes:
        around: the perturbed models.
        steps: of the attack that finds robust losses.
        restarts: of it.
        training: training samples, for the gap and Figure 7.
        held_out: samples that choose an epoch to stop at.
    """

    around: Neighbourhood = field(default_factory=Neighbourhood)
    steps: int = 20
    restarts: int = 10
    training: Dataset | None = None
    held_out: Dataset | None = None


def checked(around: Neighbourhood) -> Neighbourhood:
    """The same, if its radii are positive and finite.

    Raises:
        UsageError: one is not.
    """
    for option, radius in (("--xi", around.xi), ("--worst-xi", around.worst_xi)):
        if not 0 < radius < math.inf:
            raise UsageError(f"{option}: expected a positive number, got {radius:g}")
    return around


@own_state()
def measured(
    context: EvaluationContext,
    out: Path,
    plan: Plan,
    progress: ProgressReporter,
    command: Sequence[str],
) -> Run:
    """The run of one checkpoint with everything that the plan asks for.

    Args:
        context: the checkpoint with its data and the attack that the robust error is against.
        out: the folder that runs are kept in.
        plan: what is measured beside.
        progress: receives progress updates.
        command: what the manifest says was typed.

    Raises:
        UsageError: its folder holds a run of other weights, data or settings; or a norm in which
            robust losses are not searched.
    """
    budget = context.attack.budget
    if budget.norm not in SEARCHED or budget.eps is None:
        raise UsageError(f"robust losses are searched in {', '.join(SEARCHED)}, not {budget.norm}")
    path = out / folder_name(context)
    if path.exists():
        run = load_run(path)
        _same(run, context)
    else:
        run = attack_without_checks(context, path, command, progress)
    checked = CheckContext(context, run, progress)
    ascent = Ascent(budget.eps, budget.norm, plan.steps, plan.restarts)
    add_weight_flatness(checked, own_part(checked), ascent, plan.around)
    if plan.training is not None:
        around = Neighbourhood(plan.around.xi, plan.around.directions, worst_restarts=0)
        count = min(context.count, len(plan.training))
        add_weight_flatness(checked, Part("training", plan.training, count), ascent, around)
    if plan.held_out is not None:
        chooses = Ascent(budget.eps, budget.norm, STOPPING.steps, STOPPING.restarts)
        part = Part("held-out", plan.held_out, len(plan.held_out))
        add_weight_flatness(checked, part, chooses, TEST_ONLY)
    return run


def folder_name(context: EvaluationContext) -> str:
    """`awp-0.01-s0-epoch-080`: the checkpoint's folder and name."""
    model = Path(context.request.model)
    parts = [part for part in (model.parent.name, model.stem) if part]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))


def _same(run: Run, context: EvaluationContext) -> None:
    """Refuse a folder that holds something else."""
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
