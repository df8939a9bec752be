"""The device that the numbers of a run are computed on."""

from __future__ import annotations

from typing import Any

import torch


def device_facts(device: torch.device) -> dict[str, Any]:
    """The kind of a device, its name and what changes its numbers, as the manifest records it."""
    facts: dict[str, Any] = {"type": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return facts
