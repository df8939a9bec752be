"""What an adapter tells a recorder about its attack: its order, its runs, restarts and targets.

An adapter wraps methods of the one object that it built, never of the library's classes. The
wrappers call through with the same arguments and draw no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Order:
    """What is known about the rows of an attack's calls; nothing, by default.

    Attributes:
        keeps: calls on a whole batch keep the batch's order.
        copies: how calls on a multiple of the batch stack it: each image several times in a row,
            or the whole batch several times.
        sequential: calls are about one image after the other, each beginning with the image
            itself.
    """

    keeps: bool = False
    copies: Literal["none", "consecutive", "tiled"] = "none"
    sequential: bool = False


NO_ORDER = Order()

SINGLE_RUNS = ("attack_single_run", "attack_single_run_targeted")
"""What AutoAttack and its copies call one restart of APGD, FAB or Square."""


@dataclass(frozen=True)
class Segment:
    """One uninterrupted run of an attack's own search.

    Attributes:
        part: the attack, or the part of it: `apgd-ce`, `PGD`.
        restart: from 0; None if the attack knows no restarts.
        target: 1 for the likeliest wrong class, and so on; None if untargeted.
        eps: the radius of this run; None if it has none.
    """

    part: str
    restart: int | None = None
    target: int | None = None
    eps: float | None = None


class Monitor(Protocol):
    """Who watches an attack: a recorder, or nobody."""

    def attack(self) -> AbstractContextManager[None]:
        """The attack begins; calls outside a segment are the library's own bookkeeping."""

    def segment(self, segment: Segment, batch: Tensor | None) -> AbstractContextManager[None]:
        """A run begins; `batch` is the clean images whose order its calls keep, if they do."""


class Nobody:
    """A monitor who looks away."""

    def attack(self) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def segment(self, segment: Segment, batch: Tensor | None) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()


class _Passing:
    """Passes on what is told, to whoever is there."""

    def __init__(self, monitor: Monitor):
        self.monitor = monitor

    def attack(self) -> AbstractContextManager[None]:
        return self.monitor.attack()

    def segment(self, segment: Segment, batch: Tensor | None) -> AbstractContextManager[None]:
        return self.monitor.segment(segment, batch)


@contextmanager
def passed_on(monitor: Monitor) -> Iterator[Monitor]:
    """A monitor that lets go of this one in the end.

    A library's object whose methods are wrapped holds itself, and whoever watches it, until the
    garbage collector comes by; a recorder and its images must not wait for that.
    """
    passing = _Passing(monitor)
    try:
        yield passing
    finally:
        passing.monitor = Nobody()


def watch(monitor: Monitor, owner: Any, method: str, describe: Callable[[int], Segment]) -> None:
    """Make every call of `owner.method(images, ...)` a segment.

    Args:
        monitor: is told.
        owner: the attack object; only this object changes.
        method: its method. Calls within `attack_single_run` on as many rows as its first
            argument keep that argument's order; other methods promise nothing.
        describe: the segment, from the number of calls since `owner.perturb` began, or since
            ever where there is no such method.
    """
    run, perturb = getattr(owner, method), getattr(owner, "perturb", None)
    calls = 0

    def watched(images: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        segment, calls = describe(calls), calls + 1
        with monitor.segment(segment, images if method in SINGLE_RUNS else None):
            return run(images, *args, **kwargs)

    def begin(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls = 0
        return perturb(*args, **kwargs)  # type: ignore[misc]

    # torchattacks looks for attacks in whatever is assigned to it; it need not look here.
    object.__setattr__(owner, method, watched)
    if perturb is not None:
        object.__setattr__(owner, "perturb", begin)


def watch_individual(monitor: Monitor, owner: Any, method: str, segment: Segment) -> None:
    """Follow a method that takes one image at a time and is given its own results again.

    Each call is announced with the clean image that its argument descends from: the argument
    itself, or what the tensor was made from that an earlier call returned.
    """
    run = getattr(owner, method)
    returned: dict[int, tuple[Tensor, Tensor]] = {}

    def watched(image: Tensor, *args: Any, **kwargs: Any) -> Any:
        known, origin = returned.pop(id(image), (image, image.detach()))
        with monitor.segment(segment, origin if known is image else None):
            result = run(image, *args, **kwargs)
        for tensor in result:
            if isinstance(tensor, Tensor) and tensor.shape == image.shape:
                returned[id(tensor)] = (tensor, origin)  # held, so that its id stays its own
        return result

    object.__setattr__(owner, method, watched)


def watch_first_argument_model(
    monitor: Monitor, owner: Any, method: str, describe: Callable[[int], Segment]
) -> None:
    """The same for methods that take a model first and the batch second, as Foolbox's `run`."""
    inner = getattr(owner, method)
    calls = 0

    def watched(model: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        segment, calls = describe(calls), calls + 1
        with monitor.segment(segment, None):
            return inner(model, images, *args, **kwargs)

    setattr(owner, method, watched)
