"""A value that is on its way to the host is read when it has arrived."""

import torch

from flatguard.recording.host_copy import HostCopy


class Late:
    """An event that the device comes to on its own time, or when it is waited for."""

    def __init__(self) -> None:
        self.is_past, self.waited = False, 0

    def query(self) -> bool:
        return self.is_past

    def synchronize(self) -> None:
        self.waited += not self.is_past
        self.is_past = True


def test_on_the_cpu_values_are_there_at_once() -> None:
    copy = HostCopy.of(torch.tensor([1, 2]), torch.tensor(True))
    assert copy.has_arrived()
    numbers, flag = copy.read()
    assert numbers.tolist() == [1, 2]
    assert flag


def test_reading_waits_for_the_event() -> None:
    event, value = Late(), torch.zeros(2)
    copy = HostCopy((value,), event)
    assert not copy.has_arrived()
    (read,) = copy.read()
    assert event.waited == 1
    assert copy.has_arrived()
    value += 1  # the memory is the device's to write to, and to reuse
    assert read.tolist() == [0, 0]
