"""Hooks on the model that record every call without affecting the attack.

    with flatguard.Recorder(model, x, y) as recorder:
        torchattacks.PGD(recorder.model)(x, y)
    recorder.trajectory()

`recorder.model` is the model itself. The hooks draw no random number and compute on detached
tensors, so the attack gets the same bits as without them. The model is called on a copy of its
input, so that it cannot overwrite a tensor of the attack; with `gradients`, on a copy of a view,
whose gradient is recorded and passed on unchanged. A recorded call does not wait for the device:
what the host has to know of it arrives later (`call_queue.py`).

Inside, gradients are on, independent of the caller's setting. At the end, torch's settings and the
model's mode, flags, hooks and gradients are restored; the weights are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flatguard.attacks.monitor import NO_ORDER, Order, Segment
from flatguard.environment.randomness import preserved
from flatguard.environment.torch_state import kept_state, own_state, unobserved
from flatguard.errors import DataError, ModelError, UsageError
from flatguard.geometry.budget import Budget
from flatguard.geometry.named_losses import NamedLoss, parse_losses
from flatguard.recording.attribution import Attribution
from flatguard.recording.call_queue import Call, CallQueue, Pass, Receivers
from flatguard.recording.measure import HeadCall, Seen, measure
from flatguard.recording.mistakes import Mistakes
from flatguard.recording.trajectory import BOOKKEEPING, CallRows, GradientRows, to_frame, with_names
from flatguard.recording.waypoints import Waypoints
from flatguard.targets.calls import isolate_calls
from flatguard.targets.final_map import find_final_map
from flatguard.targets.head import FinalMap, HeadSearch
from flatguard.targets.outputs import (
    Reading,
    UnknownOutput,
    is_matrix,
    read_logits,
    reading_of,
)
from flatguard.targets.restored import restored, restored_but_values

if TYPE_CHECKING:
    import pandas as pd

_HEAD_PROOF_IMAGES = 8
PIECE_ROWS = 20_000
"""A sink receives about this many rows at a time: 2 MB."""

_GRADIENTS_LATE = 16
"""This many calls are withheld from a sink, because their gradients may still arrive."""


class Recorder:
    """Records the calls of one model while an attack runs on one batch.

    Args:
        model: any classifier; `(n, ...)` images to `(n, k)` logits.
        images: the clean batch that the attack gets.
        labels: its labels, `(n,)`.
        head: the model's proven head, the result of a search for it, or a layer's name; None
            searches.
        budget: the attack's, for attribution.
        order: the order of the rows in the attack's calls, for attribution.
        first_sample: the number of the batch's first sample in its data set.
        losses: additional losses: `focal`, `focal:GAMMA`, `brier`, `kl:ALPHA`; each adds its
            value and the sign and logarithm of its trace.
        gradients: also record the norm of each input gradient, and whether it is exactly 0.
        waypoints: receives the images of the attack's own calls, and keeps a few.
        on_call: called after each recorded call with its number of rows.
        sink: receives the trajectory in pieces during the attack; `flush()` sends the last one.
            Host memory then does not grow with the attack, and `trajectory()` contains only the
            rows that were not sent yet.

    Attributes:
        model: the given model itself.
        head: the proven head, or None, with `head_reason`.
        segments: the runs of the attack, as its adapter reported them; a user's own loop is one.
        calls: the number of recorded model calls.
        forwards: the number of rows in forward passes so far.
        backwards: the number of rows in backward passes so far.
        is_aside: whether calls are only counted: a part of the model is replaced.
        rows_aside: the number of rows that went forward so.

    Raises:
        UsageError: `head` names a layer that is not the head, or a loss is unknown.
        DataError: images and labels do not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        head: FinalMap | HeadSearch | str | None = None,
        budget: Budget | None = None,
        order: Order = NO_ORDER,
        first_sample: int = 0,
        losses: Sequence[str] = (),
        gradients: bool = False,
        waypoints: Waypoints | None = None,
        on_call: Callable[[int], None] | None = None,
        sink: Callable[[pd.DataFrame], None] | None = None,
    ):
        _check_batch(images, labels)
        self.model = model
        device = next((p.device for p in model.parameters()), images.device)
        self._images, self._labels = images.detach().to(device), labels.to(device).long()
        self._first_sample, self._on_call, self._sink = first_sample, on_call, sink
        self._gradients = gradients
        self._losses = _known_losses(losses)
        self._reading: Reading | None = None
        self.head, self.head_reason = self._proven(head)
        self._attribution = Attribution(self._images, budget, order)
        self._mistakes: Mistakes | None = None
        if budget is not None:
            self._mistakes = Mistakes(self._images, self._labels, budget)
        receivers = Receivers(self._mistakes, waypoints)
        self._queue = CallQueue(self._attribution, receivers, self._measure(math.nan))
        self._head_call: HeadCall | None = None
        self._gradient_rows: GradientRows | None = None
        self._unsent_rows = 0
        self._inside: ExitStack | None = None
        self._rows: list[Tensor | None] = []
        self.is_aside = False
        self.segments: list[Segment] = []
        self._segment = 0
        self.calls = self.forwards = self.backwards = self.rows_aside = 0

    @property
    def rows_unassigned(self) -> int:
        """The number of rows whose sample is not certain."""
        self._queue.settle()
        return self._queue.rows_unassigned

    @property
    def first_nonfinite(self) -> int | None:
        """The number of the first call with a NaN or infinite logit, or None."""
        self._queue.settle()
        return self._queue.first_nonfinite

    @property
    def mistakes(self) -> Mistakes | None:
        """The most wrong example within the budget that was seen of each image.

        None without a budget.
        """
        self._queue.settle()
        return self._mistakes

    def _measure(self, log_weight_norm: float) -> Callable[[Seen], Tensor]:
        return partial(
            measure, labels=self._labels, head=self.head, losses=self._losses,
            log_weight_norm_squared=log_weight_norm,
        )  # fmt: skip

    def _proven(
        self, head: FinalMap | HeadSearch | str | None
    ) -> tuple[FinalMap | None, str | None]:
        if isinstance(head, HeadSearch):
            return head.head, head.reason
        if head is not None and not isinstance(head, str):
            return head, None
        # A stochastic model draws random numbers in this pass, too.
        with restored(self.model), preserved(self._images.device):
            self.model.eval()
            isolate_calls(self.model)
            self._reading = self._found_reading()
            if self._reading is not None:
                read_logits(self.model, self._reading)
            search = find_final_map(self.model, self._images[:_HEAD_PROOF_IMAGES], name=head)
        if head is not None and search.head is None:
            raise UsageError(f"head {head}: {search.reason}")
        return search.head, search.reason

    def _found_reading(self) -> Reading | None:
        """How the logits are read where the model returns no tensor `(n, k)`; see `outputs.py`."""
        images = self._images[:_HEAD_PROOF_IMAGES]
        with torch.no_grad():
            output = self.model(images)
        if is_matrix(output, len(images)):
            return None  # the attack gets the same bits as without the recorder
        try:
            return reading_of(self.model, images, output)
        except UnknownOutput as unknown:
            raise ModelError(
                f"expected logits of shape (n, classes) for {len(images)} images, got {unknown}"
            ) from unknown

    def __enter__(self) -> Recorder:
        with ExitStack() as stack:
            stack.enter_context(kept_state())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(restored_but_values(self.model))
            isolate_calls(self.model)
            if self._reading is not None:
                read_logits(self.model, self._reading)
            if self.head is not None:
                with own_state():
                    self._queue.measure = self._measure(self.head.log_weight_norm_squared())
                stack.enter_context(self.head.watched(self._after_head))
            # This hook runs first, before the model's input is copied.
            before = self.model.register_forward_pre_hook(
                self._before_call, prepend=True, with_kwargs=True
            )
            after = self.model.register_forward_hook(
                self._after_call, with_kwargs=True, always_call=True
            )
            stack.callback(before.remove)
            stack.callback(after.remove)
            self._inside = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._head_call = self._gradient_rows = None
        self._rows.clear()
        if self._inside is None:
            return
        with self._inside:
            if error is None:
                self._queue.settle()

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        # An attack that copies the model copies its hooks; a copy's calls are not recorded.
        return self

    @contextmanager
    def attack(self) -> Iterator[None]:
        """An adapter's attack begins: calls outside its segments are bookkeeping."""
        before, self._segment = self._segment, BOOKKEEPING
        try:
            yield
        finally:
            self._segment = before

    @contextmanager
    def segment(self, segment: Segment, batch: Tensor | None = None) -> Iterator[None]:
        """A run of the attack begins; `batch` holds the clean images in the order of its calls."""
        before, self._segment = self._segment, len(self.segments)
        self.segments.append(segment)
        active = self._attribution.begin_run(None if batch is None else batch.detach())
        try:
            yield
        finally:
            self._segment = before
            self._attribution.end_run(active)

    @contextmanager
    def calls_on(self, batch: Tensor) -> Iterator[None]:
        """Within a run, calls are on these clean images, in their order."""
        active = self._attribution.begin_run(batch.detach())
        try:
            yield
        finally:
            self._attribution.end_run(active)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Answers are not the model's own: calls are counted, and not recorded."""
        before, self.is_aside = self.is_aside, True
        try:
            yield
        finally:
            self.is_aside = before

    def trajectory(self) -> pd.DataFrame:
        """One row per sample and call; `flatguard.recording.trajectory` lists the columns."""
        return with_names(self.measured(), self.segments)

    def measured(self) -> pd.DataFrame:
        """The same rows as they are stored: codes for names, and nothing about the segments."""
        self._queue.settle()
        return self._stored(self._queue.kept)

    def flush(self, keep: int = 0) -> None:
        """Send all calls but the last `keep` to the sink."""
        self._queue.settle()
        if self._sink is None or len(self._queue.kept) <= keep:
            return
        sent = self._queue.take(keep)
        self._unsent_rows = sum(len(call.sample) for call in self._queue.kept)
        self._sink(self._stored(sent))

    def _stored(self, calls: Sequence[CallRows]) -> pd.DataFrame:
        losses = [loss.name for loss in self._losses]
        return to_frame(calls, self._first_sample, losses, has_head=self.head is not None)

    def _before_call(
        self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        if module is not self.model:
            return None
        self._head_call = self._gradient_rows = None
        given = inputs[0] if inputs else next(iter(keywords.values()), None)
        rows = given if isinstance(given, Tensor) else None
        self._rows.append(rows)
        if not self._gradients or rows is None or not inputs or self.is_aside:
            return None
        self._gradient_rows = GradientRows(len(rows))
        if not rows.requires_grad or not torch.is_grad_enabled():
            return None
        view = rows.view_as(rows)  # a hook on the attack's own tensor would survive this call
        view.register_hook(self._gradient_rows.add)
        return (view, *inputs[1:]), keywords

    def _after_head(self, features: Tensor | None, output: Tensor) -> None:
        if features is not None and not self.is_aside:
            with own_state(), unobserved(), torch.no_grad():
                self._head_call = HeadCall.of(features.detach(), output.detach())

    def _after_call(
        self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        if module is not self.model:
            return
        rows = self._rows.pop() if self._rows else None  # the attack's own tensor, unchanged
        if rows is None:
            return
        if not isinstance(output, Tensor) or output.ndim != 2:
            return
        self.forwards += len(rows)
        if output.requires_grad:
            output.register_hook(self._count_backward(len(rows)))
        if self.is_aside:
            self.rows_aside += len(rows)
        else:
            with own_state(), unobserved(), torch.no_grad():
                self._record(rows.detach(), output.detach())
        if self._on_call is not None:
            self._on_call(len(rows))

    def _count_backward(self, rows: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            self.backwards += rows

        return hook

    def _record(self, rows: Tensor, logits: Tensor) -> None:
        if self.calls == 0 and int(self._labels.max()) >= logits.shape[1]:
            raise DataError(
                f"expected labels below {logits.shape[1]}, as the model has so many classes; got "
                f"{int(self._labels.max())}"
            )
        call = Call(self.calls, self._segment, self._gradient_rows)
        self._queue.add(call, Pass(rows, logits, self._head_call))
        self.calls += 1
        self._unsent_rows += len(rows)
        if self._sink is not None and self._unsent_rows >= PIECE_ROWS:
            self.flush(keep=_GRADIENTS_LATE if self._gradients else 0)


def _known_losses(names: Sequence[str]) -> tuple[NamedLoss, ...]:
    try:
        return parse_losses(tuple(names))
    except ValueError as error:
        raise UsageError(f"losses: {error}") from error


def _check_batch(images: Tensor, labels: Tensor) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 2:
        got = (images.dtype, tuple(images.shape)) if isinstance(images, Tensor) else type(images)
        raise DataError(f"expected a batch of floating-point images, got {got}")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels)
        raise DataError(f"expected a tensor of integer labels, got {kind}")
    if not len(images) or labels.shape != images.shape[:1]:
        raise DataError(
            f"expected a label an image, got {tuple(labels.shape)} for {len(images)} images"
        )
    if int(labels.min()) < 0:
        raise DataError(f"expected labels from 0 on, got {int(labels.min())}")
