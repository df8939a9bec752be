"""A run is resumed with the software and the kind of device that it was begun with."""

import platform
from typing import Any

import pytest
import torch

from flatguard.errors import UsageError
from flatguard.execution.software import check_same_software, versions
from flatguard.runs.run import Run


def test_versions_are_those_of_what_is_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert "pytest" not in found


def changed(run: Run, **facts: Any) -> Run:
    return Run(run.storage, run.manifest.model_copy(update=facts))


def test_the_first_difference_is_named(run: Run) -> None:
    known, device = run.manifest.versions, run.manifest.device
    check_same_software(run)
    check_same_software(changed(run, versions={**known, "platform": "another node"}))
    check_same_software(changed(run, device={**device, "threads": 77}))
    with pytest.raises(UsageError, match=r"was begun with torch 1\.0, and here is"):
        check_same_software(changed(run, versions={**known, "torch": "1.0"}))
    with pytest.raises(UsageError, match="was begun with timm None"):
        check_same_software(
            changed(run, versions={name: known[name] for name in known if name != "timm"})
        )
    with pytest.raises(UsageError, match="on a device with type abacus"):
        check_same_software(changed(run, device={**device, "type": "abacus"}))
