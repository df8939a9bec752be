"""Values on their way from the device to the host, without a wait for them.

A blocking copy (`tensor.cpu()`, `bool(tensor)`) makes the host wait until the device has finished
all earlier work, and leaves the device without work afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Event(Protocol):
    """A mark in the work of a device, such as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Whether the device has come to it."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""


@dataclass(frozen=True)
class HostCopy:
    """Copies of tensors, which arrive later.

    Attributes:
        tensors: on the host; their values are undefined before the event.
        event: comes after the copies and all earlier work of the device; None if it was waited for.
    """

    tensors: tuple[Tensor, ...]
    event: Event | None = None

    @classmethod
    def of(cls, *tensors: Tensor) -> HostCopy:
        """Send tensors of one device to the host.

        Without a wait on CUDA, where the copies are in pinned memory. On the CPU they are the
        tensors themselves, which must not change any more.
        """
        device = tensors[0].device
        # Without CUDA's events, nothing tells when a copy has arrived.
        waits = device.type not in ("cpu", "cuda")
        copies = tuple(tensor.to("cpu", non_blocking=not waits) for tensor in tensors)
        if device.type != "cuda":
            return cls(copies)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        return cls(copies, event)

    def has_arrived(self) -> bool:
        """Whether `read` returns without a wait."""
        return self.event is None or self.event.query()

    def read(self) -> list[np.ndarray]:
        """The values; waits for them if they have not arrived."""
        if self.event is None:
            return [tensor.numpy() for tensor in self.tensors]
        self.event.synchronize()
        return [tensor.numpy().copy() for tensor in self.tensors]  # pinned memory is scarce
