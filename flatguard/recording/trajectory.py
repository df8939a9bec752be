"""The table of recorded calls.

| column | meaning |
|---|---|
| `sample` | number in the data set; missing if the sample of the row is not certain |
| `call` | number of the model call, from 0, within the attack on the sample's block |
| `loss` | cross-entropy at the true label |
| `log_kappa` | natural logarithm of relative sharpness at the final linear layer |
| `trace` | trace of the loss's Hessian in that layer's weights |
| `feature_norm` | Euclidean norm of that layer's input |
| `confidence` | largest softmax probability |
| `margin` | true class's logit minus the largest other one |
| `prediction` | class of the largest logit |
| `linf`, `l2` | distance from the clean image |
| `assigned_by` | what found the sample: `declared`, `unique`, `order`, `sequence`, `unassigned` |
| `part`, `restart`, `target`, `eps` | of the attack's run; missing if it has none |
| `bookkeeping` | whether the library made the call outside the attack's search |

and, if the model has no proven head, in place of the geometry, which is missing,

| column | meaning |
|---|---|
| `log_logit_sharpness` | natural logarithm of Σp(1−p), the loss's trace in the logits |

and, if gradients were recorded,

| column | meaning |
|---|---|
| `gradients` | number of backward passes that reached this row of this call |
| `zero_gradients` | number of these in which its gradient was exactly 0 |
| `gradient_norm` | Euclidean norm of the last of them |

and, for each additional loss, by its name such as `focal` or `kl:0.1`,

| column | meaning |
|---|---|
| `NAME_loss` | its value at the true label |
| `NAME_trace_sign` | sign of the trace of its Hessian in the final linear layer: -1, 0 or 1 |
| `NAME_log_trace` | natural logarithm of that trace's magnitude |

The traces of focal and Brier can be negative, so they are stored as a sign and a logarithm.

A missing value was not measured; it is never replaced by 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.attacks.monitor import Segment
from flatguard.recording.attribution import UNASSIGNED, How
from flatguard.recording.host_copy import HostCopy
from flatguard.recording.measure import loss_columns, measured_columns

BOOKKEEPING = -1
_WIDE = ("trace", "prediction")
NARROW = {name: "float32" for name in measured_columns(False) if name not in _WIDE}
"""Stored in float32; a trace may be 1e-200, and is kept in float64."""


class GradientRows:
    """The input gradients of one call on m rows, counted on their device as they arrive.

    Attributes:
        rows: m.
        count: the number of backward passes.
        zero: `(m,)` int16, in how many of them the gradient was exactly 0; None before the first.
        norm: `(m,)` float32, of the last gradient; None before the first.
    """

    def __init__(self, rows: int):
        self.rows, self.count = rows, 0
        self.zero: Tensor | None = None
        self.norm: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        """Add the gradient of one backward pass, `(m, ...)`."""
        with torch.no_grad():
            norm = torch.linalg.vector_norm(gradient.detach().flatten(1).double(), dim=1)
            is_zero = (norm == 0).to(torch.int16)
            self.zero = is_zero if self.zero is None else self.zero + is_zero
            self.norm = norm.float()
            self.count += 1


@dataclass(frozen=True)
class CallRows:
    """One call of the model on m rows.

    `sample` and `how` are `(m,)`; `values` is the result of `measure`.
    """

    call: int
    segment: int
    sample: np.ndarray
    how: np.ndarray
    values: np.ndarray
    gradients: GradientRows | None = None


def to_frame(
    calls: Sequence[CallRows],
    first_sample: int = 0,
    losses: Sequence[str] = (),
    has_head: bool = True,
) -> pd.DataFrame:
    """The stored form of calls: numbers only, with codes for `assigned_by` and `segment`."""
    measured = measured_columns(has_head, losses)
    sizes = [len(call.sample) for call in calls]
    sample = _joined([call.sample for call in calls], (0,)).astype(np.int64)
    values = _joined([call.values for call in calls], (0, len(measured)))
    number = pd.array(sample + first_sample, dtype="Int32")
    number[sample == UNASSIGNED] = pd.NA
    numbers = dict(zip(measured, values.T, strict=True))
    geometry = measured_columns(has_head)
    frame = pd.DataFrame({name: numbers[name] for name in geometry})
    frame.insert(0, "sample", pd.Series(number))
    frame.insert(1, "call", np.repeat([call.call for call in calls], sizes).astype(np.int32))
    frame["assigned_by"] = _joined([call.how for call in calls], (0,)).astype(np.int8)
    frame["segment"] = np.repeat([call.segment for call in calls], sizes).astype(np.int16)
    gradients = [call.gradients for call in calls]
    if calls and all(rows is not None for rows in gradients):
        known = [rows for rows in gradients if rows is not None]
        frame["gradients"] = np.repeat([rows.count for rows in known], sizes).astype(np.int16)
        frame["zero_gradients"], frame["gradient_norm"] = _gradients(known)
    for loss in losses:
        value, sign, log_trace = loss_columns(loss)
        frame[value] = numbers[value].astype(np.float32)
        frame[sign] = pd.array(numbers[sign], dtype="Int8")
        frame[log_trace] = numbers[log_trace].astype(np.float32)
    narrow: pd.DataFrame = frame.astype(
        {**{name: NARROW[name] for name in geometry if name in NARROW}, "prediction": "int32"}
    )
    return narrow


def _gradients(known: Sequence[GradientRows]) -> tuple[np.ndarray, np.ndarray]:
    """How many gradients were 0, and the norm of the last one, for each row of all calls."""
    has_any = np.repeat([call.count > 0 for call in known], [call.rows for call in known])
    zero = np.zeros(len(has_any), dtype=np.int16)
    norm = np.full(len(has_any), np.nan, dtype=np.float32)
    zeros = [call.zero for call in known if call.zero is not None]
    norms = [call.norm for call in known if call.norm is not None]
    if norms:
        zero[has_any], norm[has_any] = HostCopy.of(torch.cat(zeros), torch.cat(norms)).read()
    return zero, norm


def with_names(frame: pd.DataFrame, segments: Sequence[Segment]) -> pd.DataFrame:
    """The readable form of stored calls: names for codes, and columns with the runs' facts."""
    known = [*segments, Segment("")]  # the last one is for calls in no segment
    code = frame["segment"].to_numpy().astype(np.int64)
    bookkeeping = code == BOOKKEEPING
    code = np.where((code < 0) | (code >= len(segments)), len(segments), code)
    named: pd.DataFrame = frame.drop(columns=["segment"])
    ways = [How(value).name.lower() for value in How]
    named["assigned_by"] = pd.Categorical(np.array(ways)[frame["assigned_by"].to_numpy()], ways)
    named["part"] = pd.Categorical([known[i].part for i in code])
    for column in ("restart", "target", "eps"):
        facts = pd.Series([getattr(segment, column) for segment in known], dtype="Float64")
        named[column] = facts.iloc[code].array
    named["bookkeeping"] = bookkeeping
    narrow: pd.DataFrame = named.astype({"restart": "Int16", "target": "Int16"})
    return narrow


def _joined(parts: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(empty)
