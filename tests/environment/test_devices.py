"""Devices: the default, the refusal of a missing one, and the facts in the manifest."""

import pytest
import torch
from torch import nn

from flatguard.environment.devices import choose_device, device_facts, device_of
from flatguard.errors import EnvironmentProblem, OutOfMemory


@pytest.mark.parametrize("available", [False, True])
def test_the_default_is_cuda_if_available(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device(None).type == ("cuda" if available else "cpu")


def test_a_named_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "no such device"):
        with pytest.raises(EnvironmentProblem, match=f"--device {name} is not available here"):
            choose_device(name)


def test_a_full_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(OutOfMemory, match="--device cpu, for a single number"):
        choose_device("cpu")


def test_the_device_of_a_model() -> None:
    assert device_of(nn.Linear(2, 2, device="meta")).type == "meta"
    assert device_of(nn.Identity()).type == "cpu"


def test_the_facts_of_the_cpu() -> None:
    facts = device_facts(torch.device("cpu"))
    assert facts == {"type": "cpu", "threads": torch.get_num_threads()}
