"""One check a file: a pure function from evidence to a finding."""

from __future__ import annotations

from collections.abc import Callable

from flatguard.masking.checks import (
    basin,
    black_box,
    determinism,
    discrepancy,
    gradient_truth,
    more_budget,
    scale_free_loss,
    surrogate,
)
from flatguard.masking.checks.basin import check_basin
from flatguard.masking.checks.black_box import check_black_box
from flatguard.masking.checks.determinism import check_determinism
from flatguard.masking.checks.discrepancy import check_discrepancy
from flatguard.masking.checks.gradient_truth import check_gradient_truth
from flatguard.masking.checks.more_budget import check_more_budget
from flatguard.masking.checks.scale_free_loss import check_scale_free_loss
from flatguard.masking.checks.surrogate import check_surrogate
from flatguard.masking.evidence import Evidence
from flatguard.masking.finding import Finding

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
