"""The diagnosis of this installation: faults, active workarounds, and commands that fix them."""

from __future__ import annotations

import importlib
import platform
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from flatguard.environment import compat
from flatguard.environment.requirements import (
    Requirement,
    absent_module,
    install_command,
    installer,
    repair_arguments,
    repair_command,
    requirements,
    version_of,
)
from flatguard.errors import EnvironmentProblem, one_line

_Status = Literal["ok", "workaround", "note", "broken"]

_OPTIONAL = {
    "torchattacks": "--attack torchattacks:NAME",
    "robustbench": "RobustBench's models and --dataset cifar10, cifar100, imagenet",
    "timm": "--model timm:NAME",
    "torchvision": "--model torchvision:NAME",
}
"""Packages behind an extra that most users want, and the option that needs each."""

IMPORTED = ("pyautoattack", "foolbox", *_OPTIONAL)
"""Packages that are imported as a test."""


@dataclass(frozen=True)
class Diagnosis:
    """One finding about the installation.

    Attributes:
        subject: the package or fault that was examined.
        status: `ok`; `workaround` (works because of flatguard); `note` (works, worth knowing); or
            `broken`.
        found: what is installed, or what happens.
        workaround: what flatguard does about it in this process; may be empty.
        report: the address of the upstream report; may be empty.
        do: what the user should do; may be empty.
        repairs: the package that `flatguard doctor --fix` reinstalls; may be empty.
    """

    subject: str
    status: _Status
    found: str
    workaround: str = ""
    report: str = ""
    do: str = ""
    repairs: str = ""


def diagnose() -> list[Diagnosis]:
    """Compare every version, import the libraries, and test for every known fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own warnings
        libraries = [
            _torch(),
            *_outdated(),
            *(_imports(package) for package in IMPORTED),
            *(_workaround(each) for each in compat.WORKAROUNDS),
        ]
    return [_python(), *libraries, _robustbench_copy(), _tests(), _requests()]


def fix(diagnoses: list[Diagnosis]) -> Iterator[str]:
    """Run the commands that repair the installation; yields each command before it runs.

    Modules that this process has imported stay unchanged: diagnose again in a new process.

    Raises:
        EnvironmentProblem: a command failed, or there is no pip and no uv.
    """
    for package in dict.fromkeys(each.repairs for each in diagnoses if each.repairs):
        command = repair_arguments(package)
        yield " ".join(command)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            why = lines[-1] if lines else f"exit code {done.returncode}"
            raise EnvironmentProblem(f"{package} was not repaired: {why}")


def _python() -> Diagnosis:
    found = f"{platform.python_version()} on {platform.platform()}; packages are installed by "
    return Diagnosis("python", "ok", found + installer())


def _torch() -> Diagnosis:
    try:
        import torch
    except Exception as error:  # a broken build raises ImportError, OSError or worse
        return _does_not_import("torch", error)
    if torch.cuda.is_available():
        device = f"CUDA: {torch.cuda.get_device_name(0)}"
    else:
        device = f"no GPU, {torch.get_num_threads()} threads"
    return Diagnosis("torch", "ok", f"{torch.__version__}, {device}")


def _outdated() -> Iterator[Diagnosis]:
    """Required packages that are absent, and all packages that are too old."""
    for known in requirements():
        if known.installed is None and not known.extras:
            yield _absent(known, "broken")
        elif known.too_old:
            found = f"{known.installed}; flatguard needs {known}"
            do = install_command(str(known))
            yield Diagnosis(f"version of {known.name}", "broken", found, do=do)


def _absent(known: Requirement, status: _Status) -> Diagnosis:
    wanted = f"flatguard[{known.name}]" if known.extras else str(known)
    purpose = f"; needed for {_OPTIONAL[known.name]}" if known.name in _OPTIONAL else ""
    return Diagnosis(known.name, status, f"not installed{purpose}", do=install_command(wanted))


def _imports(package: str) -> Diagnosis:
    if version_of(package) is None:
        known = next((k for k in requirements() if k.name == package), Requirement(package, ""))
        return _absent(known, "note" if package in _OPTIONAL else "broken")
    try:
        importlib.import_module(package)
    except Exception as error:  # a broken package may raise anything
        return _does_not_import(package, error)
    return Diagnosis(package, "ok", f"{version_of(package)}; it imports")


def _does_not_import(package: str, error: Exception) -> Diagnosis:
    found = f"{version_of(package)}; its import fails: {type(error).__name__}: {one_line(error)}"
    missing = absent_module(error)
    if missing is not None:
        return Diagnosis(package, "broken", found, do=install_command(missing))
    return Diagnosis(package, "broken", found, do=repair_command(package), repairs=package)


def _workaround(each: compat.Workaround) -> Diagnosis:
    owner = each.package if version_of(each.package) else _fork_of(each.package)
    version = version_of(owner)
    subject = f"workaround for {each.module}"
    if version is None:
        return Diagnosis(subject, "ok", f"not needed here: {owner} is not installed")
    try:
        importlib.import_module(each.module)
    except Exception as error:
        found = f"{owner} {version}; the workaround does not help: {one_line(error)}"
        return Diagnosis(subject, "broken", found, report=each.report, do=repair_command(owner))
    if not compat.was_needed(each):
        return Diagnosis(
            subject, "ok", f"not needed here, with {owner} {version}", report=each.report
        )
    found = f"needed here, with {owner} {version}: {each.fault}"
    return Diagnosis(subject, "workaround", found, each.effect, each.report)


def _fork_of(package: str) -> str:
    return "pyautoattack" if package == "autoattack" else package


def _robustbench_copy() -> Diagnosis:
    subject = "robustbench's files"
    if version_of("robustbench") is None:
        return Diagnosis(subject, "ok", "robustbench is not installed")
    overwritten = compat.robustbench_overwritten()
    if overwritten:
        return Diagnosis(
            subject,
            "broken",
            f"{len(overwritten)} were overwritten by the copy of 2022 in torchattacks' wheel, or "
            "are missing; RobustBench's models are refused until they are repaired",
            do=f"flatguard doctor --fix, which runs: {repair_command('robustbench')}",
            repairs="robustbench",
        )
    if version_of("torchattacks") is None:
        return Diagnosis(subject, "ok", "intact")
    return Diagnosis(
        subject,
        "note",
        "intact; torchattacks' wheel holds a copy of 2022 that overwrites them when it is "
        "installed later",
        do="after torchattacks is installed again: flatguard doctor --fix",
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
    version = version_of("requests")
    if version is None or version_of("torchattacks") is None:
        return Diagnosis("requests", "ok", version or "not installed")
    if not version.startswith("2.25."):
        found = f"{version}, newer than torchattacks asks for; both work"
        return Diagnosis("requests", "ok", found)
    return Diagnosis(
        "requests",
        "note",
        f"{version}; torchattacks asks for 2.25, of 2020, and does not need it",
        do=f"where another package needs a newer one: {install_command('requests>=2.32')}",
    )
