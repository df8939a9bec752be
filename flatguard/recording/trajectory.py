"""Recorded calls as one table.

| column | meaning |
|---|---|
| `sample` | number in the data set; missing where the row belongs to no sample for certain |
| `call` | number of the model call, from 0, within the attack on the sample's block |
| `loss` | cross-entropy at the true label |
| `log_kappa` | natural logarithm of relative sharpness at the final linear layer |
| `trace` | trace of the loss's Hessian in that layer's weights |
| `feature_norm` | Euclidean norm of that layer's input |
| `confidence` | largest softmax probability |
| `margin` | true class's logit minus the largest other one |
| `prediction` | class of the largest logit |
| `linf`, `l2` | distance from the clean image |

A missing value was not measured; it is never 0 instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.recording.attribution import UNASSIGNED
from flatguard.recording.measure import COLUMNS

NARROW = {name: "float32" for name in COLUMNS if name not in ("trace", "prediction")}
"""Stored in float32; a trace may be 1e-200, and is kept in float64."""


@dataclass(frozen=True)
class CallRows:
    """One call: `sample` is `(m,)` within the batch, `values` is `(m, len(COLUMNS))`."""

    sample: np.ndarray
    values: np.ndarray


def to_frame(calls: list[CallRows], first_sample: int = 0) -> pd.DataFrame:
    """All calls as a DataFrame with the columns above, in the order of the calls."""
    sizes = [len(call.sample) for call in calls]
    sample = _joined([call.sample for call in calls], (0,)).astype(np.int64)
    values = _joined([call.values for call in calls], (0, len(COLUMNS)))
    frame = pd.DataFrame(dict(zip(COLUMNS, values.T, strict=True)))
    number = pd.array(sample + first_sample, dtype="Int32")
    number[sample == UNASSIGNED] = pd.NA
    frame.insert(0, "sample", number)
    frame.insert(1, "call", np.repeat(np.arange(len(calls), dtype=np.int32), sizes))
    narrow: pd.DataFrame = frame.astype({**NARROW, "prediction": "int32"})
    return narrow


def _joined(parts: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(empty)
