"""Which probes run, in which order, at what price; each one's evidence is kept as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flatguard.checks.gathering.black_box import NOISE_DRAWS, add_noise, ask_without_gradient
from flatguard.checks.gathering.determinism import look_twice
from flatguard.checks.gathering.lab import EOT_DRAWS, VERIFY_DRAWS, Found, Lab
from flatguard.checks.gathering.more_budget import (
    FACTORS,
    LONGER,
    RESTARTS,
    SWEEP_STEPS,
    SWEPT,
    search_longer,
    sweep_radius,
)
from flatguard.checks.gathering.repeat import DEAREST, MOST_REPEATS, price_of_attack, repeat_attack
from flatguard.checks.gathering.scales import FACTORS as SCALES
from flatguard.checks.gathering.scales import SCALE_STEPS, SCALED, sweep_scales
from flatguard.checks.gathering.search import SEARCHED
from flatguard.checks.gathering.surrogate import transfer
from flatguard.checks.gathering.truth import LOOKED_AT, look_at_gradients
from flatguard.checks.gathering.twins import attack_twins
from flatguard.environment.torch_state import own_state
from flatguard.errors import BudgetSpent, one_line, ran_out_of_memory
from flatguard.execution.compute_budget import ComputeBudget, record_spent
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.request import Checks
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes, load_tables
from flatguard.runs.run import Run
from flatguard.targets import Target, load_target
from flatguard.targets.calls import isolate_calls


@dataclass(frozen=True)
class Level:
    """How much a level of checks spends on each sample that survived.

    Attributes:
        steps: gradients a search.
        queries: of the Square attack; 0 leaves it out.
        longer: whether longer searches, larger radii and other scales are tried.
        repeats: how many times as long the longer searches are.
        surrogate: whether the demo model is a surrogate where none is named.
    """

    steps: int = 20
    queries: int = 0
    longer: bool = False
    repeats: int = 1
    surrogate: bool = False


LEVELS: dict[Checks, Level] = {
    "fast": Level(),
    "standard": Level(queries=200, longer=True, surrogate=True),
    "full": Level(queries=2000, longer=True, repeats=5, surrogate=True),
}


@dataclass(frozen=True)
class Step:
    """One probe of the plan."""

    name: str
    run: Callable[[], Found]
    total: int
    searches: bool = True


@own_state()
def probe(
    context: EvaluationContext,
    run: Run,
    checks: Checks,
    surrogates: Sequence[Target],
    progress: ProgressReporter,
    compute_budget: ComputeBudget | None = None,
) -> None:
    """Run the probes of a level that the folder does not hold yet, or that could not run before.

    A probe that fails is kept as not run, with its reason; the others go on. Where the allowance
    is spent, this probe and all that are left are kept as not run.
    """
    lab = Lab(context, run, progress, compute_budget)
    known = {name for name, facts in load_probes(run).items() if facts.ran}
    first, *others = _plan(lab, checks, surrogates)
    if first.name not in known:
        _take(lab, first, checks, progress)
    lab.randomised = bool(load(run, first.name).facts.get("randomised"))
    left = [step for step in others if step.name not in known]
    price = estimate(lab, checks, [step.name for step in left])
    cost = f"about {price.forwards:,} sample-forwards on {len(lab.survivors)} survivors"
    nothing = "no sample survived, so there is nothing to attack again"
    about = f"{cost}, about {price.seconds:.0f} s"
    progress.log(f"checks {checks}: {about if len(lab.survivors) else nothing}")
    for step in left:
        _take(lab, step, checks, progress)


@dataclass(frozen=True)
class Price:
    """About what probes cost; more where gradients are bad and repairs are tried."""

    forwards: int
    seconds: float


def estimate(lab: Lab, checks: Checks, names: Sequence[str]) -> Price:
    """From the level's numbers; seconds from what the audited attack's own passes took."""
    level = LEVELS[checks]
    repeat, n = price_of_attack(lab), len(lab.survivors)
    longer = 2 * RESTARTS * LONGER * level.repeats * level.steps * lab.draws
    each = {
        "twins": level.steps * (1 + 3 * lab.draws),
        "repeat": min(MOST_REPEATS * repeat, max(repeat, level.steps)),
        "noise": NOISE_DRAWS * (VERIFY_DRAWS if lab.randomised else 1),
        f"square-{level.queries}": level.queries,
        f"longer-{LONGER * level.repeats * level.steps}": longer,
    }
    if repeat > DEAREST * level.steps:
        each["repeat"] = 0.0
    forwards = n * sum(price for name, price in each.items() if name in names)
    forwards += n * 11 * sum(name.startswith("surrogate") for name in names)
    looked_at = min(n, LOOKED_AT) * 3 * 70 * lab.draws
    swept = min(n, SWEPT) * 2 * len(FACTORS) * SWEEP_STEPS * lab.draws
    rescaled = min(n, SCALED) * len(SCALES) * SCALE_STEPS * lab.draws
    forwards += looked_at * ("gradient-truth" in names) + swept * ("sweep" in names)
    forwards += rescaled * ("scales" in names)
    measured = sum(block.sample_forwards for block in lab.run.blocks)
    pace = lab.run.seconds("attack") / max(1, measured)
    return Price(round(forwards), forwards * pace)


def _plan(lab: Lab, checks: Checks, surrogates: Sequence[Target]) -> list[Step]:
    level = LEVELS[checks]
    steps, n = level.steps, len(lab.survivors)

    def truth() -> Found:
        return load(lab.run, "gradient-truth")

    plan = [
        Step("determinism", lambda: look_twice(lab), 1, searches=False),
        Step("gradient-truth", lambda: look_at_gradients(lab), 1),
        Step("twins", lambda: attack_twins(lab, truth(), steps), n),
        Step("repeat", lambda: repeat_attack(lab, steps), n, searches=False),
        Step("noise", lambda: add_noise(lab), n),
    ]
    if level.queries:
        name = f"square-{level.queries}"
        plan.append(Step(name, lambda: ask_without_gradient(lab, level.queries), n))
    if level.longer:
        longer = steps * LONGER * level.repeats
        plan.append(Step(f"longer-{longer}", lambda: search_longer(lab, truth(), longer), n))
        plan.append(Step("sweep", lambda: sweep_radius(lab, truth()), 1))
        plan.append(Step("scales", lambda: sweep_scales(lab), 1))
    if surrogates:
        names = "-".join(surrogate.weights_sha256[:8] for surrogate in surrogates)
        plan.append(Step(f"surrogate-{names}", lambda: transfer(lab, surrogates), n))
    return plan


def _take(lab: Lab, step: Step, checks: Checks, progress: ProgressReporter) -> None:
    progress.stage(f"check {step.name}", step.total)
    before, began = lab.meter.forwards, time.perf_counter()
    try:
        found = _found(lab, step)
    finally:
        record_spent(lab.run, lab.meter.compute_budget)
    if step.name == "determinism" and lab.randomised:
        progress.log(
            f"the target is randomised: gradients are averaged over {EOT_DRAWS} draws (EOT)"
        )
    facts = ProbeFacts(
        name=step.name,
        checks=checks,
        ran=bool(found.facts.get("ran", True)),
        facts=found.facts,
        sample_forwards=lab.meter.forwards - before,
        seed=lab.seed(step.name),
    )
    add_probe(lab.run, facts, found.tables, found.fooled, time.perf_counter() - began)
    progress.advanced(step.total)


def _found(lab: Lab, step: Step) -> Found:
    if step.searches and lab.budget.norm not in SEARCHED:
        reason = f"searches know {', '.join(SEARCHED)}, not {lab.budget.norm}"
        return Found({"ran": False, "reason": reason})
    while True:
        try:
            lab.meter.add(0)  # the time may be over
            return step.run()
        except BudgetSpent as spent:
            return Found({"ran": False, "reason": f"budget: {spent}", "budget": True})
        except Exception as error:  # a model may raise anything; the reason is kept and shown
            if lab.at_once == 1 or not ran_out_of_memory(error):
                return Found({"ran": False, "reason": f"{type(error).__name__}: {one_line(error)}"})
        # Only here: an error that is being handled holds the memory of the pass that it ended.
        lab.at_once = (lab.at_once + 1) // 2
        lab.progress.log(
            f"check {step.name} does not fit the memory; it begins again with at most "
            f"{lab.at_once} samples at once"
        )
        lab.progress.stage(f"check {step.name}", step.total)


def load(run: Run, name: str) -> Found:
    """What a probe of this run saw; nothing if it did not run."""
    kept = load_probes(run).get(name)
    return Found() if kept is None else Found(kept.facts, load_tables(run, kept))


def surrogates_of(
    named: Sequence[str | Target], checks: Checks, resolved: EvaluationContext
) -> list[Target]:
    """The surrogates that are named; else the demo's model where it may know the classes."""
    fits = tuple(resolved.dataset.block(0, 1).images.shape[1:]) == (3, 32, 32)
    if not named and checks != "none" and LEVELS[checks].surrogate and resolved.num_classes == 10:
        named = ["demo"] if fits else []
    found = [load_target(name) if isinstance(name, str) else name for name in named]
    for surrogate in found:
        isolate_calls(surrogate.model)
        surrogate.model.to(resolved.device)
    return [s for s in found if s.weights_sha256 != resolved.target.weights_sha256]
