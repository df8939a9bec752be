"""What is derived from a run's evidence and stands beside it: verdict, summary, report."""

from __future__ import annotations

import json
import math
from typing import Any

from flatguard.checks.evidence import Evidence
from flatguard.checks.statistics import CONFIDENCE_LEVEL, interval
from flatguard.checks.verdict import VERDICT, Verdict, judge
from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.flagging import Detection, flag, load_detection, write_detection
from flatguard.environment.system import quoted
from flatguard.environment.torch_state import own_state
from flatguard.errors import RunFolderError, one_line
from flatguard.execution.progress import ProgressReporter
from flatguard.reporting.report import write_report
from flatguard.runs.check_evidence import load_probes
from flatguard.runs.json_files import write_text
from flatguard.runs.layout import SUMMARY
from flatguard.runs.run import Run


@own_state()
def derive(
    run: Run,
    tolerance: float,
    seconds: float,
    opened: SavedDetector | None,
    progress: ProgressReporter,
) -> Verdict:
    """Judge the evidence, and write what is derived from it beside it.

    Args:
        run: what was attacked, and probed.
        tolerance: the overestimate that is let pass, as a share of all samples.
        seconds: how long it took.
        opened: a detector that flags the samples; None keeps what was flagged before.
        progress: is told where the report could not be drawn.
    """
    verdict = judge(Evidence.of(run), tolerance)
    detection = load_detection(run) if opened is None else flag(run, opened)
    write_text(run.path / VERDICT, verdict.model_dump_json(indent=2))
    if detection is not None:
        write_detection(run, detection)
    summary = _summary(run, verdict, seconds, detection)
    write_text(run.path / SUMMARY, json.dumps(summary, indent=2, allow_nan=False))
    run.__dict__.pop("summary", None)
    _draw(run, progress)
    run.storage.push()
    return verdict


def _draw(run: Run, progress: ProgressReporter) -> None:
    """Draw the report; whatever goes wrong there, the run and its verdict are kept."""
    try:
        write_report(run)
    except Exception as error:
        progress.log(
            f"the report was not drawn: {one_line(error)}; the run is kept, draw it with "
            f"flatguard report {quoted(run.storage)}"
        )


def seconds_of(run: Run) -> float:
    """How long it took, as the summary has it; it is derived, so may be missing or spoilt."""
    try:
        return float(run.summary["seconds"])
    except (RunFolderError, KeyError, TypeError, ValueError):
        return run.seconds("attack")


def _summary(
    run: Run, verdict: Verdict, seconds: float, detection: Detection | None
) -> dict[str, Any]:
    """The numbers that `--json` prints, from the evidence alone but for `seconds`."""
    request, samples = run.request, run.samples
    n, robust = len(samples), int(samples["robust"].sum())
    survived_clean = int(samples["clean_correct"].sum())
    failed = sum(len(block.failures) for block in run.blocks)
    return {
        "model": run.manifest.target.name,
        "attack": request.attack,
        "norm": request.norm,
        "eps": request.budget().eps,
        "n_examples": n,
        "clean_accuracy": survived_clean / n,
        "clean_interval": interval(survived_clean, n),
        "robust_accuracy": robust / n,
        "robust_interval": interval(robust, n),
        "confidence_level": CONFIDENCE_LEVEL,
        "verdict": verdict.verdict,
        "mechanism": verdict.mechanism,
        "sentence": verdict.sentence,
        "corrected_robust_accuracy": verdict.corrected_robust_accuracy,
        "corrected_interval": verdict.corrected_interval,
        "overestimate": verdict.overestimate,
        "overestimate_interval": verdict.overestimate_interval,
        "tolerance": verdict.tolerance,
        "findings": [finding.model_dump(exclude={"data"}) for finding in verdict.findings],
        "next": verdict.next,
        "median_log_kappa_clean": _finite(samples["clean_log_kappa"].median()),
        "median_log_kappa_adversarial": _finite(samples["adv_log_kappa"].median()),
        "detection": None if detection is None else detection.model_dump(mode="json"),
        "outside_budget": int((~samples["admissible"]).sum()) - failed,
        "failed": failed,
        "sample_forwards": sum(block.sample_forwards for block in run.blocks),
        "sample_backwards": sum(block.sample_backwards for block in run.blocks),
        "check_forwards": sum(facts.sample_forwards for facts in load_probes(run).values()),
        "rows_unassigned": sum(block.rows_unassigned for block in run.blocks),
        "warnings": _warnings(run),
        "adversarial_sha256": run.adversarial_sha256(),
        "seconds": round(seconds, 3),
        "attack_seconds": round(run.seconds("attack"), 3),
        "run": str(run.storage),
    }


def _warnings(run: Run) -> list[str]:
    """What the attack's library warned of, and calls on which the model gave no numbers."""
    found = {f"{run.request.attack}: {text}" for block in run.blocks for text in block.warnings}
    for block in run.blocks:
        for failure in block.failures:
            found.add(
                f"sample {failure.sample} was not measured and counts as not robust: "
                f"{failure.error}"
            )
        if block.first_nonfinite is not None:
            found.add(
                f"the model gave NaN or infinite logits from call {block.first_nonfinite} on "
                f"(samples {block.plan.start} to {block.plan.stop - 1})"
            )
    return sorted(found)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
