"""Figure 15: relative sharpness and loss of a prompt along an attack on it.

The claim is tested without looking at the tested prompt for its peak: the peak step of a prompt is
where the median log κ of the *other* prompts is largest. The maximum of a prompt's own path is
never below its ends, so that test would agree with noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from flatguard.checks.prompt_verdict import PromptVerdict
from flatguard.reporting.prompt_report import PromptPath, prompt_report
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject

_CLAIMS = statements("walter", "prompts")
_EXAMPLES = 3
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def prompts_of(subject: Subject) -> Outcome:
    """Whether κ first rises and then falls, over the prompts that have all their steps."""
    assert subject.prompt_run is not None, "the study takes a run on prompts"
    report = prompt_report(subject.prompt_run)
    paths = [path for path in report.paths if len(path.loss) == report.steps + 1]
    if len(paths) < 2:
        missing = {"n": len(paths)}
        return Outcome(tuple(one.not_measured(**missing) for one in _CLAIMS.values()))
    kappa = np.array([path.log_kappa for path in paths])
    peaks = others_peaks(kappa)
    rows = np.arange(len(kappa))
    rise, fall = kappa[rows, peaks] - kappa[:, 0], kappa[rows, peaks] - kappa[:, -1]
    fields = {
        "rise": median(rise), "fall": median(fall), "first": min(peaks), "last": max(peaks),
        "steps": report.steps, "ends_flatter": int((kappa[:, -1] < kappa[:, 0]).sum()),
        "loss_before": median(path.loss[0] for path in paths),
        "loss_after": median(path.loss[-1] for path in paths),
    }  # fmt: skip
    claims = (
        _CLAIMS["sharper"].share_of(rise > 0, **fields),
        _CLAIMS["flatter"].share_of(fall > 0, **fields),
        _CLAIMS["both"].share_of((rise > 0) & (fall > 0), **fields),
    )
    return Outcome(claims, _figures(paths, kappa, np.minimum(rise, fall)), (_note(report.verdict),))


def others_peaks(kappa: np.ndarray) -> list[int]:
    """For each row of `(n, m)` paths, the first step where the median of the others is largest."""
    return [
        int(np.median(np.delete(kappa, row, axis=0), axis=0).argmax()) for row in range(len(kappa))
    ]


def _figures(paths: Sequence[PromptPath], kappa: np.ndarray, shape: np.ndarray) -> dict[str, Any]:
    loss = np.array([path.loss for path in paths])
    chosen = np.argsort(-shape, kind="stable")[:_EXAMPLES]
    return {
        "quantiles": list(_LEVELS),
        "log_kappa": np.quantile(kappa, _LEVELS, axis=0).tolist(),
        "loss": np.quantile(loss, _LEVELS, axis=0).tolist(),
        "examples": [
            {"prompt": paths[row].prompt, "log_kappa": list(paths[row].log_kappa),
             "loss": list(paths[row].loss)}
            for row in chosen.tolist()
        ],
    }  # fmt: skip


def _note(verdict: PromptVerdict) -> str:
    return (
        f"Of {verdict.prompts} prompts the attack claims success on {verdict.claimed}; "
        f"{verdict.left} of these hold where the suffix is sent as text."
    )
