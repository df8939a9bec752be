"""Hooks on the model that record every call; the attack never notices.

    with flatguard.Recorder(model, x, y) as recorder:
        torchattacks.PGD(recorder.model)(x, y)
    recorder.trajectory()

`recorder.model` is the model itself. The hooks return nothing, draw no random number, and
compute on detached tensors, so the attack sees the same bits as without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flatguard.errors import DataError, UsageError
from flatguard.geometry.budget import Budget
from flatguard.randomness import preserved
from flatguard.recording.attribution import UNASSIGNED, Attribution
from flatguard.recording.measure import COLUMNS, HeadCall, measure
from flatguard.recording.trajectory import CallRows, to_frame
from flatguard.targets.head import Head, HeadSearch, find_head

if TYPE_CHECKING:
    import pandas as pd

HEAD_PROOF_IMAGES = 8


class Recorder:
    """Records the calls of one model while an attack runs on one batch.

    Args:
        model: any classifier; `(n, ...)` images to `(n, k)` logits.
        images: the clean batch that the attack gets.
        labels: its labels, `(n,)`.
        head: the model's proven head, or the end of a search for it; a layer's name; None
            searches.
        budget: what the attack declares to stay within, for attribution.
        keeps_order: the attack's calls on n rows have the batch's order.
        first_sample: the number of the batch's first sample in its data set.
        on_call: called after each recorded call with its number of rows.

    Attributes:
        model: the very model that was given.
        head: the proven head, or None, with `head_reason`.
        forwards: rows that went forward through the model so far.
        backwards: rows of calls whose gradient was asked for, once for each time.

    Raises:
        UsageError: if `head` names a layer that is not the head.
        DataError: if images and labels do not belong together.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        head: Head | HeadSearch | str | None = None,
        budget: Budget | None = None,
        keeps_order: bool = False,
        first_sample: int = 0,
        on_call: Callable[[int], None] | None = None,
    ):
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"expected a label an image, got {tuple(labels.shape)} for {len(images)} images"
            )
        self.model = model
        device = next((p.device for p in model.parameters()), images.device)
        self._images, self._labels = images.detach().to(device), labels.to(device)
        self._attribution = Attribution(self._images, budget, keeps_order)
        self._first_sample, self._on_call = first_sample, on_call
        self.head, self.head_reason = self._proven(head)
        self._log_weight_norm = math.nan
        self._head_call: HeadCall | None = None
        self._calls: list[CallRows] = []
        self._handles: list[Any] = []
        self.forwards = 0
        self.backwards = 0

    def _proven(self, head: Head | HeadSearch | str | None) -> tuple[Head | None, str | None]:
        if isinstance(head, Head):
            return head, None
        if isinstance(head, HeadSearch):
            return head.head, head.reason
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with preserved(self._images.device):  # a stochastic model draws in this pass too
                search = find_head(self.model, self._images[:HEAD_PROOF_IMAGES], name=head)
        finally:
            for module, training in modes:
                module.training = training
        if head is not None and search.head is None:
            raise UsageError(f"head {head}: {search.reason}")
        return search.head, search.reason

    def __enter__(self) -> Recorder:
        if self.head is not None:
            self._log_weight_norm = self.head.log_weight_norm_squared()
            self._handles.append(self.head.module.register_forward_hook(self._after_head))
        self._handles.append(self.model.register_forward_pre_hook(self._before_call))
        self._handles.append(self.model.register_forward_hook(self._after_call, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._head_call = None

    @property
    def calls(self) -> int:
        """How many calls of the model were recorded."""
        return len(self._calls)

    @property
    def rows_unassigned(self) -> int:
        """How many rows belong to no sample for certain."""
        return sum(int((call.sample == UNASSIGNED).sum()) for call in self._calls)

    def trajectory(self) -> pd.DataFrame:
        """A row per sample and call; see `flatguard.recording.trajectory` for the columns."""
        return to_frame(self._calls, self._first_sample)

    def _before_call(self, module: nn.Module, inputs: Any) -> None:
        self._head_call = None

    def _after_head(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._head_call = HeadCall(inputs[0].detach(), output.detach()) if inputs else None

    def _after_call(
        self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        rows = inputs[0] if inputs else next(iter(keywords.values()), None)
        if not isinstance(rows, Tensor) or not isinstance(output, Tensor) or output.ndim != 2:
            return
        self.forwards += len(rows)
        if output.requires_grad:
            output.register_hook(self._count_backward(len(rows)))
        with torch.no_grad():
            self._record(rows.detach(), output.detach())
        if self._on_call is not None:
            self._on_call(len(rows))

    def _count_backward(self, rows: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            self.backwards += rows

        return hook

    def _record(self, rows: Tensor, logits: Tensor) -> None:
        sample = self._attribution.assign(rows)
        values = measure(
            rows, logits, sample, self._images, self._labels,
            self.head, self._head_call, self._log_weight_norm,
        )  # fmt: skip
        self._calls.append(CallRows(sample.cpu().numpy(), values.cpu().numpy()))


__all__ = ["COLUMNS", "Recorder"]
