"""What an adapter reports to a recorder: an attack's row order, runs, restarts and targets.

An adapter wraps methods of the object that it built, never of the library's classes. The wrappers
pass all arguments on unchanged and draw no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Order:
    """The order of the rows in an attack's model calls; unknown by default.

    Attributes:
        keeps: calls on a whole batch keep the batch's order.
        copies: how calls on a multiple of the batch repeat it: each image several times in a row
            (`consecutive`), or the whole batch several times (`tiled`).
        sequential: the attack processes one image after the other, and its first call for each
            is on the clean image.
    """

    keeps: bool = False
    copies: Literal["none", "consecutive", "tiled"] = "none"
    sequential: bool = False


NO_ORDER = Order()

SINGLE_RUNS = ("attack_single_run", "attack_single_run_targeted")
"""The method that runs one restart of APGD, FAB or Square, in AutoAttack and its copies."""


@dataclass(frozen=True)
class Segment:
    """One uninterrupted run of an attack's own search.

    Attributes:
        part: the attack, or the part of it: `apgd-ce`, `PGD`.
        restart: from 0; None if the attack has no restarts.
        target: 1 for the most likely wrong class, and so on; None if untargeted.
        eps: the radius of this run; None if it has none.
    """

    part: str
    restart: int | None = None
    target: int | None = None
    eps: float | None = None


class Monitor(Protocol):
    """Receives the runs of an attack: a recorder, or a `NoMonitor`."""

    def attack(self) -> AbstractContextManager[None]:
        """The attack begins; calls outside a segment are the library's own bookkeeping."""

    def segment(self, segment: Segment, batch: Tensor | None) -> AbstractContextManager[None]:
        """A run begins; `batch` holds the clean images in the order of its calls, if known."""

    def calls_on(self, batch: Tensor) -> AbstractContextManager[None]:
        """Within a run, calls are on these clean images, in their order."""

    def aside(self) -> AbstractContextManager[None]:
        """Answers are not the model's own, as a part of it is replaced: they are only counted."""


class NoMonitor:
    """A monitor that ignores everything."""

    def attack(self) -> AbstractContextManager[None]:
        """Ignored."""
        return nullcontext()

    def segment(self, segment: Segment, batch: Tensor | None) -> AbstractContextManager[None]:
        """Ignored."""
        return nullcontext()

    def calls_on(self, batch: Tensor) -> AbstractContextManager[None]:
        """Ignored."""
        return nullcontext()

    def aside(self) -> AbstractContextManager[None]:
        """Ignored."""
        return nullcontext()


class _Relay:
    """Forwards everything to another monitor."""

    def __init__(self, monitor: Monitor):
        self.monitor = monitor

    def attack(self) -> AbstractContextManager[None]:
        return self.monitor.attack()

    def segment(self, segment: Segment, batch: Tensor | None) -> AbstractContextManager[None]:
        return self.monitor.segment(segment, batch)

    def calls_on(self, batch: Tensor) -> AbstractContextManager[None]:
        return self.monitor.calls_on(batch)

    def aside(self) -> AbstractContextManager[None]:
        return self.monitor.aside()


@contextmanager
def detached(monitor: Monitor) -> Iterator[Monitor]:
    """A monitor that forwards to this one, and releases it at the end.

    A library's object with wrapped methods is a reference cycle, which holds its monitor until the
    garbage collector runs; a recorder and its images must be freed earlier.
    """
    relay = _Relay(monitor)
    try:
        yield relay
    finally:
        relay.monitor = NoMonitor()


def watch(monitor: Monitor, owner: Any, method: str, describe: Callable[[int], Segment]) -> None:
    """Report every call of `owner.method` as a segment.

    Args:
        monitor: receives the segments.
        owner: the attack object; only this object changes.
        method: its method. Model calls within `attack_single_run` on as many rows as its first
            argument keep that argument's order; other methods guarantee no order.
        describe: returns the segment for the number of earlier calls, counted from the start of
            `owner.perturb` if there is such a method.
    """
    run, perturb = getattr(owner, method), getattr(owner, "perturb", None)
    calls = 0

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        segment, calls = describe(calls), calls + 1
        with monitor.segment(segment, args[0] if method in SINGLE_RUNS else None):
            return run(*args, **kwargs)

    def begin(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls = 0
        return perturb(*args, **kwargs)  # type: ignore[misc]

    # torchattacks overrides __setattr__ to search assigned values for attacks.
    object.__setattr__(owner, method, watched)
    if perturb is not None:
        object.__setattr__(owner, "perturb", begin)


def watch_individual(monitor: Monitor, owner: Any, method: str, segment: Segment) -> None:
    """Report the calls of a method that takes one image and is called again on its own results.

    Each call is reported with the clean image from which its argument derives: the argument
    itself, or the origin of the tensor that an earlier call returned.
    """
    run = getattr(owner, method)
    returned: dict[int, tuple[Tensor, Tensor]] = {}

    def watched(image: Tensor, *args: Any, **kwargs: Any) -> Any:
        known, origin = returned.pop(id(image), (image, image.detach()))
        with monitor.segment(segment, origin if known is image else None):
            result = run(image, *args, **kwargs)
        for tensor in result:
            if isinstance(tensor, Tensor) and tensor.shape == image.shape:
                returned[id(tensor)] = (tensor, origin)  # held, so that no new tensor gets its id
        return result

    object.__setattr__(owner, method, watched)
