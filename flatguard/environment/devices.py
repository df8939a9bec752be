"""The device that flatguard computes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flatguard.environment.torch_state import own_state
from flatguard.errors import EnvironmentProblem, memory_errors


def choose_device(name: str | None) -> torch.device:
    """The device of this name; without a name, CUDA if it is available, else the CPU.

    Raises:
        EnvironmentProblem: this machine has no such device.
        OutOfMemory: the device has no free memory.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        with memory_errors(f"--device {name}, for a single number"):
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EnvironmentProblem(f"--device {name} is not available here; use cpu") from error
    return device


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter; the CPU if it has none."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def device_facts(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on: the device's type and name, threads, and TF32."""
    facts: dict[str, Any] = {"type": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        with own_state():  # not the caller's: flatguard computes with its own settings
            facts["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return facts
