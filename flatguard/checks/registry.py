"""The checks: those of this package and those that other distributions add.

A module of this package with a line `NAME = "its-name"` is a check, and its `CHECK` is read from
it. Another distribution adds one by an entry point in the group `flatguard.checks`, as
`its-name = "module:CHECK"`.

`check_names` reads the files and imports none of them: configs and `--help` need names only.
"""

from __future__ import annotations

import importlib
import re
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from flatguard.errors import one_line

if TYPE_CHECKING:
    from flatguard.checks.check import Check
    from flatguard.checks.evidence import Evidence
    from flatguard.checks.finding import Finding

_ENTRY_POINTS = "flatguard.checks"
"""The group in which another distribution names its checks."""

_NAME = re.compile(r'^NAME = "([a-z0-9-]+)"$', re.MULTILINE)

_ORDER = (
    "discrepancy", "gradient-truth", "scale-free-loss", "determinism", "black-box", "more-budget",
    "surrogate-transfer", "recorded-mistakes", "basin", "clean-accuracy", "batch-dependence",
    "earlier-calls", "input-writes", "model-changes", "output", "input-gradient",
)  # fmt: skip
"""The order in which findings are shown. Checks that are not named here follow by name."""


def check_names() -> tuple[str, ...]:
    """The names of all checks, in the order in which their findings are shown."""
    return _ordered([*_own(), *_added()])


def load_checks() -> list[Check]:
    """All checks, in the same order.

    A check of another distribution that cannot be loaded is one whose finding says so.
    """
    own, added = _own(), _added()
    found = []
    for name in _ordered([*own, *added]):
        if name in own:
            check: Check = importlib.import_module(f"{__package__}.{own[name]}").CHECK
            found.append(check)
        else:
            found.append(_load(added[name]))
    return found


def _ordered(names: list[str]) -> tuple[str, ...]:
    last = len(_ORDER)
    return tuple(
        sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else last, name))
    )


@lru_cache(maxsize=1)
def _own() -> dict[str, str]:
    """The module of each check of this package, by the check's name."""
    found = {}
    for file in Path(__file__).parent.glob("*.py"):
        match = _NAME.search(file.read_text("utf-8"))
        if match is not None:
            found[match.group(1)] = file.stem
    return found


def _added() -> dict[str, metadata.EntryPoint]:
    """The entry points of other distributions. A name of this package's own is not replaced."""
    own = _own()
    points = _entry_points(_installed())
    return {point.name: point for point in points if point.name not in own}


def _installed() -> tuple[tuple[str, int], ...]:
    """The folders that distributions are looked for in, and when each changed last."""
    folders = [Path(place) for place in sys.path]
    return tuple((str(f), f.stat().st_mtime_ns) for f in folders if f.is_dir())


@lru_cache(maxsize=1)
def _entry_points(installed: tuple[tuple[str, int], ...]) -> metadata.EntryPoints:
    """Those of the group. A process reads them once, and again after an installation."""
    return metadata.entry_points(group=_ENTRY_POINTS)


def _load(point: metadata.EntryPoint) -> Check:
    from flatguard.checks.check import Check
    from flatguard.environment.torch_state import kept_state

    try:
        with kept_state():
            check = point.load()
    except Exception as error:  # another distribution's import may raise anything
        return _broken(point, f"cannot be loaded: {one_line(error)}")
    if not isinstance(check, Check):
        return _broken(point, f"is {type(check).__name__}, not a flatguard.checks.check.Check")
    if check.name != point.name:
        return _broken(point, f"calls itself {check.name}")
    return _guarded(point, check)


def _guarded(point: metadata.EntryPoint, check: Check) -> Check:
    """The check of another distribution: an error in its judgement is its finding."""
    from dataclasses import replace

    def judge(evidence: Evidence, tolerance: float) -> Finding:
        try:
            return check.judge(evidence, tolerance)
        except Exception as error:  # another distribution's code may raise anything
            return _broken(point, f"failed: {one_line(error)}").judge(evidence, tolerance)

    return replace(check, judge=judge)


def _broken(point: metadata.EntryPoint, why: str) -> Check:
    from flatguard.checks.check import Check
    from flatguard.checks.finding import not_run

    distribution = point.dist.name if point.dist is not None else "an unknown distribution"
    source = f"the distribution {distribution}"

    def judge(evidence: Evidence, tolerance: float) -> Finding:
        advice = f"update or uninstall {distribution}"
        return not_run(point.name, source, f"{point.value} of {source} {why}", advice)

    return Check(point.name, source, "", judge)
