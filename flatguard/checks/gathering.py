"""Runs the probes of a level and stores the evidence of each as it ends."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flatguard.checks.context import EOT_DRAWS, CheckContext
from flatguard.checks.deciding import Deciding, why_not_drawn
from flatguard.checks.evidence import Evidence
from flatguard.checks.parts import GatheredPart
from flatguard.checks.preflight.facts import facts_of
from flatguard.checks.preflight.gather import preflight_run
from flatguard.checks.registry import load_checks
from flatguard.checks.schedule import Schedule, Step
from flatguard.checks.state_evidence import depends_on_earlier_calls
from flatguard.environment.torch_state import own_state
from flatguard.errors import one_line
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Crew, Executor, InProcess, Workers
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.ball import SEARCHED
from flatguard.request import Checks
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes
from flatguard.runs.run import Run

if TYPE_CHECKING:
    from flatguard.execution.context import EvaluationContext
    from flatguard.targets import Target


@own_state()
def gather_evidence(
    evaluation: EvaluationContext,
    run: Run,
    checks: Checks,
    surrogates: Sequence[Target],
    progress: ProgressReporter,
    compute_budget: ComputeBudget | None = None,
    executor: Executor | None = None,
) -> None:
    """Run the probes of a level that the folder does not hold yet, or that could not run before.

    A probe that fails is stored as not run, with its reason, and the others continue. Where the
    compute budget is spent, this probe and all that are left are stored as not run.

    Args:
        evaluation: the run's model and data, loaded.
        run: the attacked run.
        checks: the level.
        surrogates: models whose adversarial examples are shown to this one.
        progress: receives progress updates.
        compute_budget: what may be spent; None is no limit.
        executor: its workers gather the evidence; None is this process. The evidence is the same.
    """
    preflight_run(evaluation, run, progress)
    context = CheckContext(evaluation, run, progress, compute_budget, surrogates)
    known = {name for name, facts in load_probes(run).items() if facts.ran}
    facts = facts_of(Evidence.of_samples(run))
    context.decides_alone = facts is not None and facts.depends_on_its_batch
    _forget_if_it_remembers(context)
    first = [step for step in _plan(context, checks) if step.probe.order == 0]
    store = partial(_store, context, checks)
    Schedule(context, [step for step in first if step.name not in known], None, store).run()
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
            f"checks {checks}: up to about {cost.forwards:,} forward passes of one image on "
            f"{len(context.survivors)} survivors, about {cost.seconds:.0f} s"
        )
    else:
        progress.log(f"checks {checks}: no sample survived, so there is nothing to attack again")
    deciding = _deciding(context, checks, steps, store)
    if deciding is not None and deciding.decides():
        return
    with _workers(context, left, executor) as workers:
        Schedule(context, left, workers, store).run()


def _deciding(
    context: CheckContext,
    checks: Checks,
    steps: Sequence[Step],
    store: Callable[[Step, GatheredPart], None],
) -> Deciding | None:
    """The draws that may decide; None without `--until-decided`, or where they cannot."""
    if not context.run.request.until_decided or context.budget.norm not in SEARCHED:
        return None
    why = why_not_drawn(context)
    if why is not None:
        context.progress.log(f"all survivors are attacked, in spite of --until-decided: {why}")
        return None
    return Deciding(context, checks, [step for step in steps if step.probe.order > 0], store)


@contextmanager
def _workers(
    context: CheckContext, steps: Sequence[Step], executor: Executor | None
) -> Iterator[Workers | None]:
    """Workers that may gather these steps; None where this process has to, or may as well."""
    alone = _why_alone(context)
    if executor is None or isinstance(executor, InProcess) or not len(context.survivors):
        yield None
    elif alone is not None:
        context.progress.log(f"the checks run in one process: {alone}")
        yield None
    elif all(step.is_here for step in steps):
        yield None
    else:
        meter = context.meter
        crew = Crew(
            context.evaluation,
            context.run,
            context.progress,
            meter.compute_budget,
            context.surrogates,
            starter_works=True,
        )
        with executor.start(crew) as workers:
            yield workers


def _why_alone(context: CheckContext) -> str | None:
    """Why several processes would gather other evidence, or none; None where they may."""
    facts = facts_of(Evidence.of_samples(context.run))
    if context.remembers and not context.is_fresh:
        return "the model's answers depend on earlier calls"
    if facts is not None and facts.own_generator:
        return "the model draws its random numbers from a generator of its own"
    for surrogate in context.surrogates:
        try:
            pickle.dumps(surrogate)
        except Exception as error:  # a model may raise anything
            return f"{surrogate.name} cannot be sent to other processes ({one_line(error)})"
    return None


def _store(context: CheckContext, checks: Checks, step: Step, found: GatheredPart) -> None:
    if found.facts.get("randomised"):
        context.progress.log(
            f"the model is random: gradients are averaged over {EOT_DRAWS} of its draws"
        )
    evidence = found.evidence
    facts = ProbeFacts(
        name=step.name,
        checks=checks,
        ran=evidence.ran,
        facts=evidence.facts,
        sample_forwards=found.forwards,
        seed=context.seed(step.name),
    )
    add_probe(context.run, facts, evidence.tables, evidence.examples, found.seconds)


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


def _estimate(context: CheckContext, steps: Sequence[Step]) -> Cost:
    """Seconds are estimated from the audited attack's own passes."""
    forwards = sum(step.probe.cost(context, step.amount) for step in steps)
    measured = sum(block.sample_forwards for block in context.run.blocks)
    pace = context.run.seconds("attack") / max(1, measured)
    return Cost(round(forwards), forwards * pace)


def _plan(context: CheckContext, checks: Checks) -> list[Step]:
    steps = []
    probes = [probe for check in load_checks() for probe in check.probes]
    for probe in sorted(probes, key=lambda probe: (probe.order, probe.name)):
        amount = probe.levels.get(checks)
        name = None if amount is None else probe.stored_name(context, amount)
        if amount is not None and name is not None:
            steps.append(Step(probe, amount, name))
    return steps
