"""The table of calls: its columns, types and codes."""

import numpy as np
import pytest
import torch
from torch import nn

import flatguard
from flatguard.attacks import build_attack
from flatguard.attacks.monitor import Segment
from flatguard.data.dataset import Batch
from flatguard.geometry.budget import Budget
from flatguard.recording.attribution import UNASSIGNED, How
from flatguard.recording.measure import COLUMNS
from flatguard.recording.trajectory import BOOKKEEPING, CallRows, to_frame, with_names
from flatguard.targets import Target

EPS = 8 / 255


Images = tuple[torch.Tensor, torch.Tensor]


def test_an_empty_recording_has_its_columns(model: nn.Module, tiny_data: Images) -> None:
    frame = flatguard.Recorder(model, *tiny_data).trajectory()
    assert len(frame) == 0
    assert {"sample", "call", "loss", "log_kappa", "trace", "l2"} <= set(frame.columns)


def test_gradients_are_counted_for_each_backward_pass(model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    with flatguard.Recorder(model, x, y, gradients=True) as recorder:
        inputs = x.clone().requires_grad_()
        logits = model(inputs)
        first = torch.autograd.grad(logits[:6].sum(), inputs, retain_graph=True)[0]
        second = torch.autograd.grad(logits[:, 0].sum(), inputs)[0]
        model(x)
    frame = recorder.trajectory()
    called, looked = frame[frame["call"] == 0], frame[frame["call"] == 1]
    assert called["gradients"].tolist() == [2] * 12
    assert called["zero_gradients"].tolist() == [0] * 6 + [1] * 6
    norms = second.flatten(1).norm(dim=1).tolist()
    assert called["gradient_norm"].tolist() == pytest.approx(norms, rel=1e-5)
    assert looked["gradients"].tolist() == [0] * 12
    assert looked["gradient_norm"].isna().all()
    assert first[6:].abs().sum() == 0


def test_segments_tell_restarts_targets_and_bookkeeping(demo: Target, demo_batch: Batch) -> None:
    x, y = demo_batch.images[:4], demo_batch.labels[:4]
    budget = Budget("Linf", 0.2 / 255)  # too small to fool, so every run happens
    attack = build_attack("apgd-t", budget, 10, {"n_iter": 2, "n_target_classes": 3})
    recorder = flatguard.Recorder(demo.model, x, y, head=demo.head, budget=budget)
    with recorder:
        attack.perturb(demo.model, x, y, seed=0, monitor=recorder)
    frame = recorder.trajectory()
    search = frame[~frame["bookkeeping"]]
    assert set(search["part"]) == {"apgd-t"}
    assert sorted(set(search["target"])) == [1, 2, 3]
    assert set(search["restart"]) == {0}
    assert set(search["eps"]) == {0.2 / 255}
    assert frame["bookkeeping"].iloc[0]  # AutoAttack's own checks come first
    assert frame.loc[frame["bookkeeping"], "part"].eq("").all()


def call(number: int, segment: int, sample: list[int], how: How) -> CallRows:
    values = np.arange(len(sample) * len(COLUMNS), dtype=float).reshape(len(sample), -1)
    return CallRows(
        number, segment, np.array(sample), np.full(len(sample), how.value), values + 1e-200
    )


def test_stored_calls_get_names() -> None:
    calls = [
        call(0, BOOKKEEPING, [0, UNASSIGNED], How.UNASSIGNED),
        call(1, 1, [1], How.DECLARED),
        call(2, 0, [0], How.ORDER),
    ]
    stored = to_frame(calls, first_sample=10)
    assert stored["sample"].tolist()[::2] == [10, 11]
    assert stored["sample"].isna().tolist() == [False, True, False, False]
    assert stored["call"].tolist() == [0, 0, 1, 2]
    assert stored["trace"].dtype == "float64"  # a trace may be 1e-200
    assert stored["trace"].iloc[0] > 0
    named = with_names(stored, [Segment("fab", 0), Segment("apgd-t", None, 2, 0.5)])
    assert named["part"].tolist() == ["", "", "apgd-t", "fab"]
    assert named["bookkeeping"].tolist() == [True, True, False, False]
    assert named["assigned_by"].tolist() == ["unassigned", "unassigned", "declared", "order"]
    assert named["target"].isna().tolist() == [True, True, False, True]
    assert named["restart"].iloc[3] == 0
    assert named["eps"].iloc[2] == 0.5
