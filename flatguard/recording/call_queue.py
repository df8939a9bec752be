"""From a model call to its rows in the trajectory, without a wait for the device.

A call passes three stations, in the order of the attack. It is *open* until its rows are assigned,
which needs a flag from the device. Then it waits for the other calls of its *group*, which are
measured together. The measured values are *sent* to the host, and rows for the trajectory when they
have arrived. On the CPU, everything arrives at once.

The groups depend on the calls alone, never on what has arrived when: neither do the values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flatguard.environment.torch_state import own_state
from flatguard.recording.attribution import UNASSIGNED, Attribution, Launched
from flatguard.recording.host_copy import HostCopy
from flatguard.recording.measure import HeadCall, Seen
from flatguard.recording.mistakes import Mistakes
from flatguard.recording.trajectory import BOOKKEEPING, CallRows, GradientRows
from flatguard.recording.waypoints import Waypoints

GROUP_VALUES = 200_000
"""This many logits are measured together: 20,000 rows of 10 classes, or 200 of 1,000."""

OPEN_BYTES = 256 * 2**20
"""Open calls keep copies of their rows; beyond so many bytes, the first of them is waited for."""


@dataclass
class Call:
    """A recorded call.

    Attributes:
        number: from 0, within the attack.
        segment: the number of the attack's run, or `BOOKKEEPING`.
        gradients: what arrives of its input gradients.
        seen: its values; None while the call is open.
        how: `(m,)`, the steps that assigned its rows; None while the call is open.
    """

    number: int
    segment: int
    gradients: GradientRows | None = None
    seen: Seen | None = None
    how: Tensor | None = None


@dataclass
class Pass:
    """The tensors of a call: rows, `(m, ...)`, logits, `(m, k)`, and what its head did."""

    rows: Tensor
    logits: Tensor
    head_call: HeadCall | None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.rows.nbytes + self.logits.nbytes

    def copied(self) -> Pass:
        """A copy that the attack cannot change."""
        return Pass(self.rows.clone(), self.logits.clone(), self.head_call)


@dataclass
class _Open:
    call: Call
    made: Pass
    launched: Launched
    numbers: HostCopy | None

    def is_ready(self) -> bool:
        arrived = self.numbers is None or self.numbers.has_arrived()
        return arrived and self.launched.is_ready()


@dataclass(frozen=True)
class _Sent:
    calls: list[Call]
    copy: HostCopy


@dataclass(frozen=True)
class Receivers:
    """What receives the assigned rows of each call, in order."""

    mistakes: Mistakes | None = None
    waypoints: Waypoints | None = None


class CallQueue:
    """Takes the calls of an attack through their stations.

    Args:
        attribution: assigns the rows.
        receivers: receive the rows with their samples.
        measure: the columns of the trajectory, `(m, c)`, of m rows.

    Attributes:
        measure: as above; set anew when the model's weights are.
        kept: the measured calls, in order.
        rows_unassigned: the number of their rows whose sample is not certain.
        first_nonfinite: the number of the first of them with a NaN or infinite logit, or None.
    """

    def __init__(
        self, attribution: Attribution, receivers: Receivers, measure: Callable[[Seen], Tensor]
    ):
        self._attribution, self._receivers, self.measure = attribution, receivers, measure
        self._open: deque[_Open] = deque()
        self._open_bytes = 0
        self._group: list[Call] = []
        self._group_values = self._classes = 0
        self._closed: deque[list[Call]] = deque()
        self._sent: deque[_Sent] = deque()
        self._numbers_of: Tensor | None = None
        self._numbers: HostCopy | None = None
        self.kept: list[CallRows] = []
        self.rows_unassigned = 0
        self.first_nonfinite: int | None = None

    def add(self, call: Call, made: Pass) -> None:
        """Add a call, within `own_state` and without gradients; go on with what has arrived."""
        if made.logits.shape[1] != self._classes:
            self._close_group()
            self._classes = made.logits.shape[1]
        launched = self._attribution.launch(made.rows)
        added = _Open(call, made, launched, self._send_numbers(call, launched))
        self._group.append(call)
        self._group_values += made.logits.numel()
        self._open.append(added)
        self._open_bytes += made.size
        if self._group_values >= GROUP_VALUES:
            self._close_group()
        self._go_on(waits=False)
        if call.seen is None:
            added.made = made.copied()  # the attack computes in place

    def settle(self) -> None:
        """Measure all calls, and wait for them."""
        with own_state(), torch.no_grad():
            self._close_group()
            self._go_on(waits=True)

    def take(self, keep: int = 0) -> list[CallRows]:
        """Hand over all measured calls but the last `keep`."""
        taken = self.kept[: max(0, len(self.kept) - keep)]
        self.kept = self.kept[len(taken) :]
        return taken

    def _close_group(self) -> None:
        if self._group:
            self._closed.append(self._group)
        self._group, self._group_values = [], 0

    def _send_numbers(self, call: Call, launched: Launched) -> HostCopy | None:
        """The expected samples, for the waypoints; most calls are on those of the one before."""
        if self._receivers.waypoints is None or call.segment == BOOKKEEPING:
            return None
        sample = launched.expected.sample
        if self._numbers_of is not sample:
            self._numbers_of, self._numbers = sample, HostCopy.of(sample)
        return self._numbers

    def _go_on(self, waits: bool) -> None:
        while self._open and (waits or self._open[0].is_ready() or self._is_full()):
            self._finish(self._open.popleft())
        while self._closed and not self._is_open(self._closed[0]):
            finished = [call for call in self._closed.popleft() if call.seen is not None]
            if finished:  # without a call whose assignment was interrupted
                self._sent.append(self._measured(finished))
        while self._sent and (waits or self._sent[0].copy.has_arrived()):
            self._keep(self._sent.popleft())

    def _is_open(self, group: list[Call]) -> bool:
        return bool(self._open) and self._open[0].call.number <= group[-1].number

    def _is_full(self) -> bool:
        """Whether the copies are too large; the last call has none yet, and is the attack's own."""
        return len(self._open) > 1 and self._open_bytes > OPEN_BYTES

    def _finish(self, done: _Open) -> None:
        self._open_bytes -= done.made.size
        call, made = done.call, done.made
        assigned = self._attribution.finish(done.launched, made.rows)
        if self._receivers.waypoints is not None and done.numbers is not None:
            is_expected = assigned.sample is done.launched.expected.sample
            copy = done.numbers if is_expected else HostCopy.of(assigned.sample)
            self._receivers.waypoints.add(call.number, copy.read()[0].tolist(), made.rows)
        if self._receivers.mistakes is not None:
            self._receivers.mistakes.add(assigned, made.rows, made.logits)
        call.seen, call.how = Seen.of(assigned, made.logits, made.head_call), assigned.how

    def _measured(self, calls: list[Call]) -> _Sent:
        seen = Seen.joined([call.seen for call in calls if call.seen is not None])
        how = torch.cat([call.how for call in calls if call.how is not None])
        is_finite = seen.logits.isfinite().all(dim=1)
        return _Sent(calls, HostCopy.of(self.measure(seen), seen.sample, how, is_finite))

    def _keep(self, sent: _Sent) -> None:
        values, sample, how, is_finite = sent.copy.read()
        self.rows_unassigned += int((sample == UNASSIGNED).sum())
        ends = np.cumsum([0 if call.how is None else len(call.how) for call in sent.calls])
        for call, start, end in zip(sent.calls, [0, *ends], ends, strict=False):
            rows = slice(start, end)
            if self.first_nonfinite is None and not is_finite[rows].all():
                self.first_nonfinite = call.number
            self.kept.append(
                CallRows(
                    call.number, call.segment, sample[rows], how[rows], values[rows], call.gradients
                )
            )
