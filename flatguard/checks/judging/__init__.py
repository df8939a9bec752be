"""One check a file: a pure function from evidence to a finding."""

from __future__ import annotations

from collections.abc import Callable

from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding
from flatguard.checks.judging import (
    basin,
    black_box,
    determinism,
    discrepancy,
    gradient_truth,
    more_budget,
    scale_free_loss,
    surrogate,
)
from flatguard.checks.judging.basin import check_basin
from flatguard.checks.judging.black_box import check_black_box
from flatguard.checks.judging.determinism import check_determinism
from flatguard.checks.judging.discrepancy import check_discrepancy
from flatguard.checks.judging.gradient_truth import check_gradient_truth
from flatguard.checks.judging.more_budget import check_more_budget
from flatguard.checks.judging.scale_free_loss import check_scale_free_loss
from flatguard.checks.judging.surrogate import check_surrogate

Check = Callable[[Evidence, float], Finding]

CHECKS: tuple[Check, ...] = (
    check_discrepancy,
    check_gradient_truth,
    check_scale_free_loss,
    check_determinism,
    check_black_box,
    check_more_budget,
    check_surrogate,
    check_basin,
)
CHECK_NAMES: tuple[str, ...] = tuple(
    module.NAME
    for module in (
        discrepancy, gradient_truth, scale_free_loss, determinism, black_box, more_budget,
        surrogate, basin,
    )
)  # fmt: skip
"""Their names, in the same order."""

CORE = ("discrepancy", "gradient-truth", "scale-free-loss", "determinism")
"""Without these there is no verdict in the number's favour."""


def run_checks(evidence: Evidence, tolerance: float) -> list[Finding]:
    """Every check's finding, in the order in which they are shown."""
    return [check(evidence, tolerance) for check in CHECKS]
