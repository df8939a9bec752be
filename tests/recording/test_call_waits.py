"""Recording a model call adds nothing that makes the host wait for the device."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import digits_target
from support.host_waits import HostWaits

import flatguard
from flatguard.attacks import build_attack
from flatguard.attacks.attack import Attack
from flatguard.attacks.monitor import NO_ORDER
from flatguard.geometry.budget import Budget
from flatguard.recording.waypoints import Waypoints
from flatguard.targets import Target

IMAGES, LABELS = digits_target.images(20), digits_target.labels(20)
BUDGET = Budget("Linf", 0.1)
LENGTHS = {
    "torchattacks:PGD": ("steps", 3, 9),
    "apgd-ce": ("n_iter", 3, 6),
    "square": ("n_queries", 20, 60),
    "fab": ("n_iter", 3, 6),
    "foolbox:LinfPGD": ("steps", 3, 9),
}
"""The argument that makes the attack longer, and two values of it."""

RECORDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "as evaluated": dict,
    "without a known order": lambda: {"order": NO_ORDER},
    "with gradients": lambda: {"gradients": True},
    "with waypoints": lambda: {"waypoints": Waypoints(4)},
    "with losses": lambda: {"losses": ("brier", "kl:0.1")},
}
CONSTANT = 25
"""At most so many waits are added to a whole attack: at its begin and end, and for its tables."""


@pytest.fixture(scope="module")
def target() -> Target:
    found = digits_target.target()
    added(build_attack("torchattacks:PGD", BUDGET, 10, {"steps": 1}), found, {})  # fills caches
    return found


def added(attack: Attack, target: Target, how: dict[str, Any]) -> tuple[int, Counter[str]]:
    """The calls of an attack, and the waits that recording it adds."""
    how = {"order": attack.info.order, **how}
    recorder = flatguard.Recorder(
        target.model, IMAGES, LABELS, head=target.head, budget=BUDGET, sink=lambda _: None, **how
    )
    with HostWaits() as bare:
        attack.perturb(target.model, IMAGES, LABELS, 0)
    with HostWaits() as recorded:
        with recorder:
            attack.perturb(target.model, IMAGES, LABELS, 0, recorder)
        recorder.flush()
    assert not bare.found - recorded.found
    return recorder.calls, recorded.found - bare.found


@pytest.mark.parametrize("kind", RECORDERS)
@pytest.mark.parametrize("name", LENGTHS)
def test_a_call_adds_no_wait(name: str, kind: str, target: Target) -> None:
    argument, *lengths = LENGTHS[name]
    (calls, few), (more_calls, more) = (
        added(build_attack(name, BUDGET, 10, {argument: length}), target, RECORDERS[kind]())
        for length in lengths
    )
    assert more_calls > calls
    assert f"{(more.total() - few.total()) / (more_calls - calls):.2f}" == "0.00", more - few
    assert more.total() <= CONSTANT, more


def test_what_makes_the_host_wait_is_counted() -> None:
    """A count of 0 shows nothing unless each kind of wait is seen."""
    x = torch.arange(6.0)
    waits = {
        "item": lambda: x.sum().item(),
        "bool": lambda: bool((x > 2).all()),
        "mask": lambda: x[x > 2],
        "put": lambda: x.clone().__setitem__(x > 2, x[:3]),
        "nonzero": lambda: (x > 2).nonzero(),
        "equal": lambda: torch.equal(x, x),
        "unique": lambda: x.unique(),
        "where": lambda: torch.where(x > 2, x, 0.0),
        "repeat": lambda: x.repeat_interleave(x.long()),
        "cpu": lambda: (x + 1).cpu(),
        "to": lambda: (x + 1).to("cpu"),
        "numpy": lambda: (x + 1).numpy(),
        "tolist": lambda: (x + 1).tolist(),
    }
    for name, wait in waits.items():
        with HostWaits() as counted:
            wait()
        assert counted.total >= 1, name
    with HostWaits() as counted:
        (x + 1).to("cpu", non_blocking=True).numpy()
        x[torch.tensor([1, 2])].masked_fill(x[:2] > 0, 1.0).to(torch.float64)
    assert counted.total == 0, counted.found
