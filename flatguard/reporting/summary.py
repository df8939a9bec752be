"""The summary of a judged run: the numbers that `--json` prints and `summary.json` holds."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from flatguard.checks.claims.leaderboard_comparison import compare_with_leaderboard
from flatguard.checks.claims.stored_claim import StoredClaim
from flatguard.checks.statistics import CONFIDENCE_LEVEL, interval
from flatguard.checks.verdict import Verdict
from flatguard.detection.flagging import Detection
from flatguard.errors import RunFolderError
from flatguard.geometry.measures import LOGIT_SHARPNESS
from flatguard.runs.check_evidence import price_of_checks
from flatguard.runs.json_files import write_text
from flatguard.runs.layout import SUMMARY
from flatguard.runs.run import Run


def write_summary(run: Run, summary: dict[str, Any]) -> None:
    """Write `summary.json`; `run.summary` reads the new one."""
    write_text(run.path / SUMMARY, json.dumps(summary, indent=2, allow_nan=False))
    run.__dict__.pop("summary", None)


def recorded_seconds(run: Run) -> float:
    """The seconds in the summary; without a readable summary, the seconds of the attack."""
    try:
        return float(run.summary["seconds"])
    except (RunFolderError, KeyError, TypeError, ValueError):
        return run.seconds("attack")


def summarise(
    run: Run,
    verdict: Verdict,
    seconds: float,
    detection: Detection | None,
    claim: StoredClaim | None = None,
) -> dict[str, Any]:
    """The numbers that `--json` prints; all but `seconds` are computed from the evidence."""
    request, samples = run.request, run.samples
    n, robust = len(samples), int(samples["robust"].sum())
    correct = int(samples["clean_correct"].sum())
    failed = sum(len(block.failures) for block in run.blocks)
    published = compare_with_leaderboard(run, (correct, n), robust)
    return {
        "model": run.manifest.target.name,
        "attack": request.attack,
        "norm": request.norm,
        "eps": request.budget().eps,
        "n_examples": n,
        "clean_accuracy": correct / n,
        "clean_interval": interval(correct, n),
        "robust_accuracy": robust / n,
        "robust_interval": interval(robust, n),
        "abstentions": _abstentions(run),
        "engine": _engine(run),
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
        **_logit_sharpness(samples),
        "detection": None if detection is None else detection.model_dump(mode="json"),
        "claim": None if claim is None else claim.model_dump(mode="json"),
        "leaderboard": None if published is None else published.model_dump(mode="json"),
        "outside_budget": int((~samples["admissible"]).sum()) - failed,
        "failed": failed,
        "sample_forwards": sum(block.sample_forwards for block in run.blocks),
        "sample_backwards": sum(block.sample_backwards for block in run.blocks),
        "check_forwards": price_of_checks(run),
        "rows_unassigned": sum(block.rows_unassigned for block in run.blocks),
        "warnings": _warnings(run),
        "adversarial_sha256": run.adversarial_sha256(),
        "seconds": round(seconds, 3),
        "attack_seconds": round(run.seconds("attack"), 3),
        "run": str(run.storage),
    }


def _engine(run: Run) -> dict[str, Any] | None:
    """How the model that was searched decides on the returned examples; None where it is the model.

    `only_in_search` counts examples within the budget that fool it and not the model itself.
    """
    if not run.request.engine:
        return None
    samples = run.samples
    is_right = samples["search_prediction"].eq(samples["label"]) | ~samples["admissible"]
    is_right &= samples["clean_correct"]
    robust = samples["robust"]
    return {
        "options": list(run.request.engine),
        "search_robust_accuracy": float(is_right.mean()),
        "only_in_search": int((robust & ~is_right).sum()),
        "only_in_model": int((is_right & ~robust).sum()),
    }


def _abstentions(run: Run) -> dict[str, float] | None:
    """Shares of samples on which the target abstains; None if it never does."""
    if not run.manifest.target.abstains:
        return None
    last, samples = run.manifest.target.num_classes - 1, run.samples
    return {
        "clean": float((samples["clean_prediction"] == last).mean()),
        "adversarial": float((samples["adv_prediction"] == last).mean()),
    }


def _logit_sharpness(samples: pd.DataFrame) -> dict[str, float | None]:
    """Medians of log logit sharpness where the model has no proven head, else None."""
    column = LOGIT_SHARPNESS.column
    return {
        f"median_{column}_{name}": _finite(samples[f"{when}_{column}"].median())
        if f"{when}_{column}" in samples
        else None
        for when, name in (("clean", "clean"), ("adv", "adversarial"))
    }


def _warnings(run: Run) -> list[str]:
    """Warnings of the attack's library, samples that failed, and calls with non-finite logits."""
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
