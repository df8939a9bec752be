r"""The two measures of sharpness, and their names: κ where a head is proven, else logit sharpness.

- relative sharpness κ: $\|W\|_F^2 \cdot \sum_j p_j (1 - p_j) \cdot \|\varphi\|^2$, which needs the
  final linear map;
- logit sharpness: $\sum_j p_j (1 - p_j)$, which needs the logits alone.

Logit sharpness is the trace of the loss's Hessian in the logits. Both are kept as logarithms.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class SharpnessMeasure:
    """A measure of sharpness as tables and reports name it.

    Attributes:
        column: of its logarithm in the trajectory; `clean_` and `adv_` precede it in the samples.
        name: in running text.
        start: at the beginning of a sentence.
        title: the same, in full.
    """

    column: str
    name: str
    start: str
    title: str

    @property
    def log_name(self) -> str:
        """The name of its logarithm."""
        return f"log {self.name}"


KAPPA = SharpnessMeasure("log_kappa", "κ", "κ", "Relative sharpness κ")
LOGIT_SHARPNESS = SharpnessMeasure(
    "log_logit_sharpness", "logit sharpness", "Logit sharpness", "Logit sharpness Σp(1−p)"
)


def measure_in(columns: Collection[str]) -> SharpnessMeasure:
    """The measure that a table of samples or of a trajectory holds."""
    name = LOGIT_SHARPNESS.column
    return LOGIT_SHARPNESS if name in columns or f"clean_{name}" in columns else KAPPA
