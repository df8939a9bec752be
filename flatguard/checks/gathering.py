"""Runs the probes of a level and stores the evidence of each as it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flatguard.checks.check import Probe
from flatguard.checks.context import EOT_DRAWS, CheckContext
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.preflight.facts import facts_of
from flatguard.checks.preflight.gather import preflight_run
from flatguard.checks.registry import load_checks
from flatguard.checks.state_evidence import depends_on_earlier_calls
from flatguard.environment.torch_state import own_state
from flatguard.errors import BudgetSpent, one_line, ran_out_of_memory
from flatguard.execution.compute_budget import ComputeBudget, record_spent
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.ball import SEARCHED
from flatguard.request import Checks
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes
from flatguard.runs.run import Run

if TYPE_CHECKING:
    from flatguard.execution.context import EvaluationContext
    from flatguard.targets import Target


@dataclass(frozen=True)
class _Step:
    """A probe of the plan, with what it spends on a sample and its name in the run folder."""

    probe: Probe
    amount: int
    name: str


@own_state()
def gather_evidence(
    evaluation: EvaluationContext,
    run: Run,
    checks: Checks,
    surrogates: Sequence[Target],
    progress: ProgressReporter,
    compute_budget: ComputeBudget | None = None,
) -> None:
    """Run the probes of a level that the folder does not hold yet, or that could not run before.

    A probe that fails is stored as not run, with its reason, and the others continue. Where the
    compute budget is spent, this probe and all that are left are stored as not run.
    """
    preflight_run(evaluation, run, progress)
    context = CheckContext(evaluation, run, progress, compute_budget, surrogates)
    known = {name for name, facts in load_probes(run).items() if facts.ran}
    facts = facts_of(Evidence.of_samples(run))
    context.decides_alone = facts is not None and facts.depends_on_its_batch
    _forget_if_it_remembers(context)
    first = [step for step in _plan(context, checks) if step.probe.order == 0]
    for step in first:
        if step.name not in known:
            _run(context, step, checks)
    _forget_if_it_remembers(context)
    measured = context.stored("determinism").facts
    context.randomised, context.shares_draws = (
        bool(measured.get(name)) for name in ("randomised", "shares_draws")
    )
    context.worth_attacking = Evidence.of_samples(run).worth_attacking
    steps = _plan(context, checks)
    left = [step for step in steps if step.probe.order > 0 and step.name not in known]
    cost = _estimate(context, left)
    if len(context.survivors):
        progress.log(
            f"checks {checks}: about {cost.forwards:,} forward passes of one image on "
            f"{len(context.survivors)} survivors, about {cost.seconds:.0f} s"
        )
    else:
        progress.log(f"checks {checks}: no sample survived, so there is nothing to attack again")
    for step in left:
        _run(context, step, checks)


def _forget_if_it_remembers(context: CheckContext) -> None:
    """Attack new copies of the model where what was measured so far says that it remembers."""
    if not context.remembers and depends_on_earlier_calls(Evidence.of_samples(context.run)):
        context.forget_between_calls()
        context.progress.log(
            "answers depend on earlier calls: each call is answered by a new copy of the model"
            if context.is_fresh
            else "answers depend on earlier calls, and the model cannot be copied"
        )


@dataclass(frozen=True)
class Cost:
    """About what probes cost; more where gradients are bad and repairs are tried."""

    forwards: int
    seconds: float


def estimate(context: CheckContext, checks: Checks) -> Cost:
    """The cost of a level's probes after determinism."""
    return _estimate(context, [step for step in _plan(context, checks) if step.probe.order > 0])


def _estimate(context: CheckContext, steps: Sequence[_Step]) -> Cost:
    """Seconds are estimated from the audited attack's own passes."""
    forwards = sum(step.probe.cost(context, step.amount) for step in steps)
    measured = sum(block.sample_forwards for block in context.run.blocks)
    pace = context.run.seconds("attack") / max(1, measured)
    return Cost(round(forwards), forwards * pace)


def _plan(context: CheckContext, checks: Checks) -> list[_Step]:
    steps = []
    probes = [probe for check in load_checks() for probe in check.probes]
    for probe in sorted(probes, key=lambda probe: (probe.order, probe.name)):
        amount = probe.levels.get(checks)
        name = None if amount is None else probe.stored_name(context, amount)
        if amount is not None and name is not None:
            steps.append(_Step(probe, amount, name))
    return steps


def _run(context: CheckContext, step: _Step, checks: Checks) -> None:
    total = len(context.survivors) if step.probe.per_survivor else 1
    context.progress.stage(f"check {step.name}", total)
    before, began = context.meter.forwards, time.perf_counter()
    try:
        found = _gathered(context, step, total)
    finally:
        record_spent(context.run, context.meter.compute_budget)
    if found.facts.get("randomised"):
        context.progress.log(
            f"the target is randomised: gradients are averaged over {EOT_DRAWS} draws (EOT)"
        )
    facts = ProbeFacts(
        name=step.name,
        checks=checks,
        ran=found.ran,
        facts=found.facts,
        sample_forwards=context.meter.forwards - before,
        seed=context.seed(step.name),
    )
    add_probe(context.run, facts, found.tables, found.examples, time.perf_counter() - began)
    context.progress.advanced(total)


def _gathered(context: CheckContext, step: _Step, total: int) -> ProbeEvidence:
    if step.probe.searches and context.budget.norm not in SEARCHED:
        known = ", ".join(SEARCHED)
        return ProbeEvidence.missing(f"searches support {known}, not {context.budget.norm}")
    while True:
        try:
            context.meter.add(0)  # raises where the time is over
            return step.probe.gather(context, step.amount)
        except BudgetSpent as spent:
            return ProbeEvidence.missing(f"budget: {spent}", budget=True)
        except Exception as error:  # a model may raise anything; the reason is stored and shown
            if context.batch_limit == 1 or not ran_out_of_memory(error):
                return ProbeEvidence.missing(f"{type(error).__name__}: {one_line(error)}")
        # Only here: an error that is being handled holds the memory of the pass that it ended.
        context.batch_limit = (context.batch_limit + 1) // 2
        context.progress.log(
            f"check {step.name} does not fit the memory; it begins again with at most "
            f"{context.batch_limit} samples at once"
        )
        context.progress.stage(f"check {step.name}", total)
