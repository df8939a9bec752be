"""`finish()`: how every evaluation ends. The evidence is gathered, judged and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flatguard.checks.claims.stored_claim import answer_stored_claim
from flatguard.checks.evidence import Evidence
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.verdict import VERDICT, Verdict, judge, tolerance_of
from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.flagging import flag, load_detection, write_detection
from flatguard.environment.system import quoted
from flatguard.errors import NoRoom, one_line
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import EvaluationContext
from flatguard.execution.executors import Executor
from flatguard.execution.progress import ProgressReporter
from flatguard.reporting.report import write_report
from flatguard.reporting.summary import recorded_seconds, summarise, write_summary
from flatguard.request import Checks
from flatguard.runs.json_files import write_text
from flatguard.runs.run import Run
from flatguard.targets.target import Target


@dataclass(frozen=True)
class Gathering:
    """What the checks need to gather evidence.

    Attributes:
        context: the run's model and data, loaded.
        checks: the level; `none` gathers nothing.
        surrogates: models whose adversarial examples are shown to this one.
        executor: its workers gather; None is this process.
    """

    context: EvaluationContext
    checks: Checks
    surrogates: Sequence[Target]
    executor: Executor | None = None


def finish(
    run: Run,
    progress: ProgressReporter,
    gathering: Gathering | None = None,
    detector: SavedDetector | None = None,
    tolerance: float | None = None,
    compute_budget: ComputeBudget | None = None,
) -> Verdict:
    """The final step of every evaluation: gather the checks' evidence, judge it, report.

    Args:
        run: the attacked run; an incomplete one is judged without gathering.
        progress: receives progress updates.
        gathering: what the checks need; None judges what the folder holds.
        detector: flags the samples; None keeps what was flagged before.
        tolerance: the overestimate that is accepted; None is that of the run.
        compute_budget: what the evaluation may spend, and the seconds that it has taken; None is
            no limit, and keeps the recorded seconds.
    """
    if gathering is not None and gathering.checks != "none" and run.complete:
        gather_evidence(
            gathering.context,
            run,
            gathering.checks,
            gathering.surrogates,
            progress,
            compute_budget,
            gathering.executor,
        )
    seconds = recorded_seconds(run) if compute_budget is None else compute_budget.seconds
    evidence = Evidence.of(run)
    verdict = judge(evidence, tolerance_of(run) if tolerance is None else tolerance)
    detection = load_detection(run) if detector is None else flag(run, detector)
    write_text(run.path / VERDICT, verdict.model_dump_json(indent=2))
    if detection is not None:
        write_detection(run, detection)
    claim = answer_stored_claim(run, evidence, verdict)
    write_summary(run, summarise(run, verdict, seconds, detection, claim))
    try:
        write_report(run)
    except NoRoom:
        raise
    except Exception as error:  # the run and its verdict are worth more than the report
        progress.log(
            f"the report was not written: {one_line(error)}; the run is kept, write it with "
            f"flatguard report {quoted(run.storage)}"
        )
    run.storage.push()
    return verdict
