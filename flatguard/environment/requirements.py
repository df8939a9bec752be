"""The packages that flatguard needs: which are absent, too old or broken, and how to install them.

A package that works is never refused for its version. Versions are used to explain a failure, and
`flatguard doctor` compares them all.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from flatguard.errors import EnvironmentProblem, one_line

_Installer = Literal["pip", "uv"]


@dataclass(frozen=True)
class Requirement:
    """A package that flatguard's own metadata names.

    Attributes:
        name: of the distribution, such as `pyyaml`.
        versions: the accepted versions, such as `>=6.0`; empty if all are.
        extras: the extras that require it; none if flatguard always needs it.
    """

    name: str
    versions: str
    extras: tuple[str, ...] = ()

    @property
    def installed(self) -> str | None:
        """The version that is installed, or None."""
        return version_of(self.name)

    @property
    def too_old(self) -> bool:
        """Whether it is installed in a version that flatguard does not accept."""
        from packaging.specifiers import SpecifierSet

        found = self.installed
        return found is not None and not SpecifierSet(self.versions).contains(
            found, prereleases=True
        )

    def __str__(self) -> str:
        return f"{self.name}{self.versions}"


def version_of(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[Requirement]:
    """Every package that flatguard needs, always or for one of its extras.

    Empty if flatguard is on the path but not installed, because then it has no metadata.
    """
    from packaging.requirements import Requirement as Parsed

    try:
        texts = metadata.requires("flatguard") or []
    except metadata.PackageNotFoundError:
        return []
    found: dict[str, Requirement] = {}
    for text in texts:
        parsed = Parsed(text)
        if parsed.name == "flatguard":
            continue
        extra = _extra_of(text)
        known = found.get(parsed.name, Requirement(parsed.name, str(parsed.specifier)))
        extras = (*known.extras, extra) if extra else known.extras
        found[parsed.name] = Requirement(parsed.name, known.versions, extras)
    return list(found.values())


def _extra_of(requirement: str) -> str | None:
    """The extra of a requirement such as `torchattacks>=3.5.1; extra == 'torchattacks'`."""
    _, found, rest = requirement.partition("extra == ")
    return rest.strip().strip("'\"") if found else None


@contextmanager
def needed(package: str, extra: str, purpose: str) -> Iterator[None]:
    """Surrounds the import of an optional package; if it fails, the error names what to install.

    Args:
        package: the distribution, such as `scikit-learn`.
        extra: the extra of flatguard that installs it.
        purpose: what needs the package; the subject of the message.

    Raises:
        EnvironmentProblem: the package is absent, too old or broken.

    Example:
        >>> with needed("torchattacks", "torchattacks", "torchattacks:PGD"):
        ...     import torchattacks
    """
    try:
        yield
    except Exception as error:  # a broken package may raise anything
        wanted = next((str(known) for known in requirements() if known.name == package), package)
        missing = package if version_of(package) is None else absent_module(error)
        if missing is None:
            why = _broken(package, error)
        else:
            command = install_command(f"flatguard[{extra}]")  # also installs what the package needs
            why = f"{missing} is not installed; install it with: {command}"
        raise EnvironmentProblem(f"{purpose} needs {wanted}; {why}") from error


def _broken(package: str, error: BaseException) -> str:
    """The reason why an installed package does not work, and the command that fixes it."""
    known = next((known for known in requirements() if known.name == package), None)
    found, what = f"{package} {version_of(package)}", f"{type(error).__name__}: {one_line(error)}"
    if known is not None and known.too_old:
        return f"{found} is too old ({what}); install it with: {install_command(str(known))}"
    missing = absent_module(error)
    if missing is not None:
        command = install_command(missing)
        return f"{found} needs {missing}, which is not installed; install it with: {command}"
    return f"{found} cannot be imported ({what}); repair it with: {repair_command(package)}"


def absent_module(error: BaseException) -> str | None:
    """The missing top-level module that an error names, or None."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    top = error.name.partition(".")[0]
    return top if importlib.util.find_spec(top) is None else None


def explain(error: BaseException) -> str | None:
    """One line for an error that an absent, too old or broken package caused; None for others.

    For unexpected failures: a failed import, or an error in a package that is too old.
    """
    for known in requirements():
        if known.extras:
            continue
        if known.installed is None:
            return f"flatguard needs {known}, which is not installed; install it with: " + (
                install_command(str(known))
            )
        if known.too_old:
            return (
                f"flatguard needs {known}, but {known.name} {known.installed} is installed "
                f"({type(error).__name__}: {one_line(error)}); install it with: "
                f"{install_command(str(known))}"
            )
    return explain_import(error)


def explain_import(error: BaseException) -> str | None:
    """One line for an error during the import of another package; None for other errors."""
    package = _failed_import(error)
    if package is not None:
        return _broken(package, error)
    missing = absent_module(error)
    if missing is None or missing == "flatguard":
        return None
    return f"{missing} is not installed; install it with: {install_command(missing)}"


def _failed_import(error: BaseException) -> str | None:
    """The distribution whose import raised: the first foreign module in the traceback."""
    own = {"flatguard", "__main__", ""} | sys.stdlib_module_names
    for frame, _ in traceback.walk_tb(error.__traceback__):
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and top not in own:
            return next(iter(metadata.packages_distributions().get(top, [])), None)
    return None


def installer() -> _Installer:
    """The tool that installs packages here: the one that installed flatguard."""
    try:
        wrote = metadata.distribution("flatguard").read_text("INSTALLER") or ""
    except metadata.PackageNotFoundError:
        wrote = ""
    if wrote.strip() == "uv":
        return "uv"
    return "pip" if importlib.util.find_spec("pip") or not shutil.which("uv") else "uv"


def install_command(requirement: str) -> str:
    """The shell command that installs a requirement."""
    quoted = requirement if requirement.isalnum() else f"'{requirement}'"
    return f"{'uv pip' if installer() == 'uv' else 'pip'} install {quoted}"


def repair_command(package: str) -> str:
    """The shell command that reinstalls the files of one package, without its dependencies."""
    if installer() == "uv":
        return f"uv pip install --reinstall-package {package} --no-deps {package}"
    return f"pip install --force-reinstall --no-deps {package}"


def repair_arguments(package: str) -> list[str]:
    """`repair_command` as arguments of a process, for this interpreter and the installed release.

    Raises:
        EnvironmentProblem: there is neither pip nor uv.
    """
    source = _source_of(package)
    uv = shutil.which("uv")
    if installer() == "uv" and uv is not None:
        options = ["--reinstall-package", package, "--no-deps"]
        return [uv, "pip", "install", "--python", sys.executable, *options, source]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--force-reinstall", "--no-deps", source]
    raise EnvironmentProblem(
        f"cannot repair {package}: this environment has no pip, and there is no uv on the path; "
        f"run: {repair_command(package)}"
    )


def _source_of(package: str) -> str:
    """The requirement of the installed release: a version, or the address of its source."""
    distribution = metadata.distribution(package)
    direct = distribution.read_text("direct_url.json")
    if not direct:
        return f"{package}=={distribution.version}"
    facts = json.loads(direct)
    url, vcs = str(facts["url"]), facts.get("vcs_info")
    if vcs:
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    elif url.startswith("file://") and not Path(url.removeprefix("file://")).exists():
        return f"{package}=={distribution.version}"
    return f"{package} @ {url}"
