"""The software and the device that a run is made with; a resumed run needs the same."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from flatguard.environment.devices import device_facts
from flatguard.errors import UsageError
from flatguard.runs.run import Run

_PACKAGES = (
    "flatguard", "torch", "torchvision", "torchattacks", "pyautoattack", "autoattack",
    "robustbench", "foolbox", "timm", "transformers", "tokenizers", "open-clip-torch", "numpy",
    "pandas", "pyarrow",
)  # fmt: skip


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """The versions of Python, the platform and the packages that may change a run's numbers.

    Args:
        more: packages beside those of a run on images.
    """
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    # The build decides numbers, too; some packages leave it out of their metadata.
    return found | {"torch": str(torch.__version__)}


def check_same_software(run: Run) -> None:
    """Refuse to resume a run with other software or on another kind of device.

    Raises:
        UsageError: names the first difference.
    """
    device = torch.device(str(run.request.device))
    check_same(str(run.storage), run.manifest.versions, versions(), run.manifest.device, device)


def check_same(
    run: str,
    before: Mapping[str, str],
    now: Mapping[str, str],
    device: Mapping[str, Any],
    here: torch.device,
) -> None:
    """Refuse other versions, or another kind of device, than a run began with.

    The operating system's version may differ, as it does between the nodes of a cluster.

    Args:
        run: its name in the message.
        before: the versions that it began with.
        now: those of this process.
        device: the facts of the device that it began on.
        here: the device of this process.

    Raises:
        UsageError: names the first difference.
    """
    for name in sorted({*before, *now} - {"platform"}):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{run} was begun with {name} {before.get(name)}, and here is "
                f"{now.get(name)}; install that version, or start a new run"
            )
    facts = device_facts(here)
    for name in sorted({*device, *facts} - {"threads"}):
        if device.get(name) != facts.get(name):
            raise UsageError(
                f"{run} was begun on a device with {name} {device.get(name)}, and here is "
                f"{facts.get(name)}; its other blocks need the same device"
            )
