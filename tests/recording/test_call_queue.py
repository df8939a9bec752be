"""A value that arrives late from the device changes only the time at which a call is finished."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import flatguard
from flatguard.attacks import build_attack
from flatguard.attacks.monitor import NO_ORDER, Order, Segment
from flatguard.geometry.budget import Budget
from flatguard.recording import call_queue
from flatguard.recording.host_copy import HostCopy
from flatguard.recording.waypoints import Waypoints

EPS = 8 / 255
Images = tuple[Tensor, Tensor]


@dataclass
class Copying:
    """A copy to the host, which writes its values when the device comes to it."""

    device: Device
    values: list[Tensor]
    host: tuple[Tensor, ...]
    is_past: bool = False

    def query(self) -> bool:
        self.device.run(self.device.speed())
        return self.is_past

    def synchronize(self) -> None:
        self.device.waits += not self.is_past
        while not self.is_past:
            self.device.run(1)


class Device:
    """Copies to the host in the order in which they were sent, and late.

    Args:
        most: how many copies it may finish between two looks at them; 0 if it never does by itself.
    """

    def __init__(self, most: int, seed: int = 0):
        self._most, self._random = most, random.Random(seed)
        self._work: deque[Copying] = deque()
        self.waits = 0

    def speed(self) -> int:
        return self._random.randint(0, self._most)

    def copy(self, *tensors: Tensor) -> HostCopy:
        """In place of `HostCopy.of`. Read too early, a value is wrong."""
        wrong = tuple(~t if t.dtype == torch.bool else torch.full_like(t, 3) for t in tensors)
        copying = Copying(self, [tensor.clone() for tensor in tensors], wrong)
        self._work.append(copying)
        return HostCopy(wrong, copying)

    def run(self, copies: int) -> None:
        for _ in range(min(copies, len(self._work))):
            done = self._work.popleft()
            for host, value in zip(done.host, done.values, strict=True):
                host.copy_(value)
            done.is_past = True


class Restless(nn.Module):
    """Its logits are infinite at the sixth call, and NaN at the eighth."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        bad = {6: torch.inf, 8: torch.nan}.get(self.calls, 0.0)
        logits: Tensor = self.net(x)
        return logits + bad


def in_place(recorder: flatguard.Recorder, x: Tensor) -> None:
    """A loop that computes in place, on all, some, reordered, and foreign images."""
    generator, moved, batch = torch.Generator().manual_seed(3), x.clone(), x[2:7].clone()
    for step in range(12):
        some = torch.randperm(len(x), generator=generator)[: 4 + step % 3]
        recorder.model(moved)
        with recorder.segment(Segment("part"), batch):
            run = batch.clone()
            recorder.model(run)
            batch.copy_(x[2:7] if step % 4 else x[3:8])  # twice a clean batch, then another one
            run.fill_(0.5)
            recorder.model(moved[some])
            recorder.model(run)
        rows = moved[some]
        recorder.model(rows)
        rows.copy_(1 - rows)
        recorder.model(rows[:1])
        noise = torch.rand(x.shape, generator=generator) - 0.5
        moved.add_(noise * EPS * (1 + step % 5)).clamp_(0, 1)


def recorded(
    model: nn.Module, data: Images, order: Order, name: str = ""
) -> tuple[pd.DataFrame, list[Any]]:
    """The trajectory, and all else that a recorder finds out."""
    (x, y), way, budget = data, Waypoints(3), Budget("L2" if "Deep" in name else "Linf", EPS)
    recorder = flatguard.Recorder(
        Restless(model), x, y, budget=budget, order=order, waypoints=way, gradients=True
    )
    recorder.model.calls = 0
    with recorder:
        if name:
            attack = build_attack(name, budget, 4, {})
            attack.perturb(recorder.model, x, y, seed=0, monitor=recorder)
        else:
            in_place(recorder, x)
    assert recorder.mistakes is not None
    kept = recorder.mistakes.of(torch.ones(len(x), dtype=torch.bool))
    facts: list[Any] = [recorder.first_nonfinite, recorder.rows_unassigned, recorder.segments]
    facts += [] if kept is None else [t.tolist() for t in (kept.sample, kept.images, kept.margin)]
    facts += [[(p.call, p.image.tolist()) for p in way.of(i)] for i in range(3)]
    return recorder.trajectory(), facts


CASES = {
    "in place": ("", NO_ORDER),
    "in place, order kept": ("", Order(keeps=True)),
    "in place, one after the other": ("", Order(sequential=True)),
    "apgd-ce": ("apgd-ce", NO_ORDER),
    "PGD": ("torchattacks:PGD", NO_ORDER),
    "DeepFool": ("torchattacks:DeepFool", Order(sequential=True)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_record_does_not_depend_on_when_values_arrive(
    most: int, case: str, model: nn.Module, tiny_data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, order = CASES[case]
    monkeypatch.setattr(call_queue, "GROUP_VALUES", 300)
    table, facts = recorded(model, tiny_data, order, name)
    monkeypatch.setattr(HostCopy, "of", Device(most, seed=len(case)).copy)
    late_table, late_facts = recorded(model, tiny_data, order, name)
    pd.testing.assert_frame_equal(late_table, table, check_exact=True)
    assert late_facts == facts
    assert facts[0] == (5 if table["call"].max() > 4 else None)


def test_a_device_that_is_behind_is_not_waited_for(
    model: nn.Module, tiny_data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = tiny_data
    device = Device(most=0)
    monkeypatch.setattr(HostCopy, "of", device.copy)
    with flatguard.Recorder(model, x, y, budget=Budget("Linf", EPS)) as recorder:
        for _ in range(30):
            model(x)
        assert device.waits == 0
    assert device.waits > 0
    assert len(recorder.trajectory()) == recorder.forwards


def test_the_copies_of_open_calls_are_bounded(
    model: nn.Module, tiny_data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = tiny_data
    device, size = Device(most=0), x.nbytes + 12 * 4 * 4
    monkeypatch.setattr(HostCopy, "of", device.copy)
    monkeypatch.setattr(call_queue, "OPEN_BYTES", 5 * size)
    with flatguard.Recorder(model, x, y, budget=Budget("Linf", EPS)) as recorder:
        waits = []
        for _ in range(8):
            model(x)
            waits.append(device.waits)
    assert waits == [0, 0, 0, 0, 0, 1, 2, 3]
    assert recorder.rows_unassigned == 0


def test_an_interrupted_call_does_not_hold_up_the_others(
    model: nn.Module, tiny_data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = tiny_data
    recorder = flatguard.Recorder(model, x, y, budget=Budget("Linf", EPS))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with recorder:
        model(x)
        with monkeypatch.context() as patch:
            patch.setattr(recorder.mistakes, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                model(x)
        model(x)
    assert recorder.trajectory()["call"].unique().tolist() == [0, 1]
