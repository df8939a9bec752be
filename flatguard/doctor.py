"""What is wrong with this installation, what flatguard mended, and what is left to do."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from flatguard import compat
from flatguard.errors import one_line

Status = Literal["ok", "mended", "note", "broken"]
LIBRARIES = ("torchattacks", "autoattack", "robustbench", "foolbox")


@dataclass(frozen=True)
class Diagnosis:
    """One line of the table.

    Attributes:
        subject: the package or trap that was looked at.
        status: `ok`, `mended` (works because of flatguard), `note` (works, worth knowing) or
            `broken`.
        found: what is installed or happens.
        mended: what flatguard did about it, in this process.
        do: what the user should do; empty if nothing.
    """

    subject: str
    status: Status
    found: str
    mended: str = ""
    do: str = ""


def diagnose() -> list[Diagnosis]:
    """Look at every known trap, and import the four libraries for real."""
    traps = [_autoattack(), _pkg_resources(), _robustbench_copy(), _tests(), _requests()]
    return [_python(), _torch(), _torchvision(), *traps, *(_imports(n) for n in LIBRARIES)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Diagnosis:
    return Diagnosis("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _torch() -> Diagnosis:
    import torch

    if torch.cuda.is_available():
        device = f"CUDA: {torch.cuda.get_device_name(0)}"
    else:
        device = f"no GPU, {torch.get_num_threads()} threads"
    return Diagnosis("torch", "ok", f"{torch.__version__}, {device}")


def _torchvision() -> Diagnosis:
    version = _version("torchvision")
    if version is None:
        return Diagnosis("torchvision", "broken", "not installed", do="pip install torchvision")
    importlib.import_module("torchvision")  # mends first, if need be
    mended = compat.mended().get("torchvision")
    if mended is None:
        return Diagnosis("torchvision operators", "ok", f"torchvision {version}; they load")
    return Diagnosis(
        "torchvision operators",
        "mended",
        f"torchvision {version}; its compiled operators do not load beside this torch",
        mended,
        "nothing for flatguard; for detection models install torchvision's build for this torch",
    )


def _autoattack() -> Diagnosis:
    if _version("autoattack"):
        return Diagnosis("autoattack", "ok", f"the original, {_version('autoattack')}")
    fork = _version("pyautoattack")
    if fork is None:
        return Diagnosis("autoattack", "broken", "not installed", do="pip install pyautoattack")
    importlib.import_module("autoattack")
    return Diagnosis(
        "autoattack",
        "mended",
        f"not installed; the registry has its fork pyautoattack {fork}",
        compat.mended().get("autoattack", ""),
        "nothing; an autoattack that you install from its repository wins",
    )


def _pkg_resources() -> Diagnosis:
    setuptools = _version("setuptools")
    if importlib.util.find_spec("pkg_resources") is not None:
        return Diagnosis("pkg_resources", "ok", f"setuptools {setuptools} has it")
    return Diagnosis(
        "pkg_resources",
        "mended",
        f"gone from setuptools {setuptools or '(not installed)'}; robustbench.loaders wants it",
        "robustbench.loaders gets its one function when it is imported; nobody else sees it",
        "nothing",
    )


def _robustbench_copy() -> Diagnosis:
    subject = "robustbench's files"
    if _version("torchattacks") is None or _version("robustbench") is None:
        return Diagnosis(subject, "ok", "no second copy: one of the two packages is not installed")
    overwritten = compat.robustbench_overwritten()
    if overwritten:
        return Diagnosis(
            subject,
            "broken",
            f"{len(overwritten)} were overwritten by the copy of 2022 in torchattacks' wheel",
            "cannot be mended in memory; RobustBench models are refused until it is repaired",
            compat.REPAIR_ROBUSTBENCH,
        )
    return Diagnosis(
        subject,
        "note",
        f"intact ({_version('robustbench')}); torchattacks' wheel holds a copy of 2022",
        do=f"after reinstalling torchattacks: {compat.REPAIR_ROBUSTBENCH}",
    )


def _tests() -> Diagnosis:
    subject = "top-level tests/"
    owners = metadata.packages_distributions().get("tests", [])
    if not owners:
        return Diagnosis(subject, "ok", "no package installs one")
    return Diagnosis(
        subject,
        "note",
        f"installed by {', '.join(sorted(set(owners)))}",
        do="do not import your own tests as `tests`; pytest --import-mode=importlib is safe",
    )


def _requests() -> Diagnosis:
    version = _version("requests")
    if version is None or _version("torchattacks") is None:
        return Diagnosis("requests", "ok", version or "not installed")
    held = version.startswith("2.25.")
    return Diagnosis(
        "requests",
        "note",
        f"{version}; torchattacks asks for 2.25, of 2020"
        if held
        else f"{version}, newer than torchattacks asks for; everything works",
        do="pip install -U requests urllib3 idna is safe; pip will complain" if held else "",
    )


def _imports(library: str) -> Diagnosis:
    try:
        importlib.import_module(library)
    except Exception as error:  # whatever a broken package raises is the finding
        what = f"{type(error).__name__}: {one_line(error)}"
        return Diagnosis(f"import {library}", "broken", what, do=f"pip install -U {library}")
    return Diagnosis(f"import {library}", "ok", _version(library) or "by flatguard's mending")
