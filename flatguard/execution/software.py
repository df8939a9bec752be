"""The software and the device that a run is made with; a resumed run needs the same."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from flatguard.environment.devices import device_facts
from flatguard.errors import UsageError
from flatguard.runs.run import Run

_PACKAGES = (
    "flatguard", "torch", "torchvision", "torchattacks", "pyautoattack", "autoattack",
    "robustbench", "foolbox", "timm", "transformers", "tokenizers", "open-clip-torch", "numpy",
    "pandas", "pyarrow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The versions of Python, the platform and the packages that may change a run's numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    # The build decides numbers, too; some packages leave it out of their metadata.
    return found | {"torch": str(torch.__version__)}


def check_same_software(run: Run) -> None:
    """Refuse to resume a run with other software or on another kind of device.

    The operating system's version may differ, as it does between the nodes of a cluster.

    Raises:
        UsageError: names the first difference.
    """
    before, now = run.manifest.versions, versions()
    for name in sorted({*before, *now} - {"platform"}):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{run.storage} was begun with {name} {before.get(name)}, and here is "
                f"{now.get(name)}; install that version, or start a new run"
            )
    device, here = run.manifest.device, device_facts(torch.device(str(run.request.device)))
    for name in sorted({*device, *here} - {"threads"}):
        if device.get(name) != here.get(name):
            raise UsageError(
                f"{run.storage} was begun on a device with {name} {device.get(name)}, and here is "
                f"{here.get(name)}; its other blocks need the same device"
            )
