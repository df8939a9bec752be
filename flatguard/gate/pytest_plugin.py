"""The pytest plugin: a fixture, and a test for each finding and threshold of a config.

Every pytest run on the machine loads this module, so it imports nothing but pytest; the gate, and
torch with it, is imported when it is asked for. What the gate thinks is in `flatguard.gate`.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr
    from _pytest.terminal import TerminalReporter

    from flatguard.gate.cache import RunCache
    from flatguard.gate.config import Config
    from flatguard.gate.gate import Judged

PROPERTY = "flatguard"
LIMITS = ("max_forwards", "max_minutes")
GATES = pytest.StashKey["list[_Gate]"]()
SESSION = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and what may stand in an ini file."""
    group = parser.getgroup("flatguard", "flatguard: can this robust accuracy be believed?")
    group.addoption(
        "--flatguard-config", action="append", default=[], metavar="NAME_OR_PATH",
        help="Collect a test for each finding and threshold of this config.",
    )  # fmt: skip
    group.addoption("--flatguard-cache", metavar="DIR", help="Where runs are kept by content.")
    group.addoption(
        "--flatguard-fresh", action="store_true", help="Attack again, whatever the cache has."
    )
    group.addoption("--flatguard-max-forwards", type=int, metavar="N", help="Then inconclusive.")
    group.addoption("--flatguard-max-minutes", type=float, metavar="M", help="Then inconclusive.")
    parser.addini("flatguard_config", "Configs, as --flatguard-config.", type="linelist")
    parser.addini("flatguard_cache", "As --flatguard-cache.")
    parser.addini("flatguard_max_forwards", "As --flatguard-max-forwards.")
    parser.addini("flatguard_max_minutes", "As --flatguard-max-minutes.")


def pytest_configure(config: pytest.Config) -> None:
    """Read the configs; a mistake in one ends the run before anything is attacked."""
    worker = getattr(config, "workerinput", {})
    config.stash[SESSION] = worker.get("testrunuid") or uuid.uuid4().hex
    names = config.getoption("--flatguard-config") or config.getini("flatguard_config")
    config.stash[GATES] = [_Gate(config, name, _loaded(config, name)) for name in names]


def _loaded(config: pytest.Config, name: str) -> Config:
    from flatguard.errors import FlatguardError
    from flatguard.gate.config import load_config

    try:
        loaded = _limited(config, load_config(_config_file(config, name)))
        loaded.check_detector()
        return loaded
    except FlatguardError as error:
        raise pytest.UsageError(f"flatguard: {error}") from error


def _config_file(config: pytest.Config, name: str) -> str:
    """A path as it stands, or in the folder of the ini file where that is not there."""
    beside = config.rootpath / name
    is_path = Path(name).suffix in (".yaml", ".yml")
    return str(beside) if is_path and not Path(name).is_file() and beside.is_file() else name


def _limited(config: pytest.Config, asked: Config) -> Config:
    """The same config within the session's limits: of two, the tighter one."""
    session = type(asked)().with_(**_limits(config))
    tighter = {}
    for name in LIMITS:
        both = [getattr(each, name) for each in (asked, session)]
        given = [limit for limit in both if limit is not None]
        if given:
            tighter[name] = min(given)
    return asked.with_(**tighter)


def _limits(config: pytest.Config) -> dict[str, Any]:
    found = {}
    for name in LIMITS:
        option = config.getoption(f"--flatguard-{name.replace('_', '-')}")
        value = config.getini(f"flatguard_{name}") if option is None else option
        if value not in (None, ""):
            found[name] = value
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the configs' tests; before others deselect."""
    for gate in config.stash[GATES]:
        collector = GateFile.from_parent(session, path=gate.file)
        items.extend(collector.items_of(gate))


class GateFile(pytest.File):
    """A config."""

    def items_of(self, gate: _Gate) -> Iterator[GateItem]:
        """A test for each outcome that there will be."""
        from flatguard.gate.config import Thresholds
        from flatguard.gate.outcome import labels

        for label in labels(gate.config.gate or Thresholds()):
            yield GateItem.from_parent(self, name=label, gate=gate)

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Nothing: `items_of` knows the config."""
        return []


class GateItem(pytest.Item):
    """One finding or threshold of a config."""

    def __init__(self, *, gate: _Gate, **kwargs: Any):
        super().__init__(**kwargs)
        self._gate = gate

    def runtest(self) -> None:
        """Fail where the gate is shut by this outcome."""
        judged = self._gate.judged(self.user_properties)
        (outcome,) = (found for found in judged.outcomes if found.label == self.name)
        self.add_report_section("call", "flatguard", _provenance(judged))
        if outcome.shut:
            pytest.fail(f"{self._gate.name}: {outcome.text}", pytrace=False)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        """One line where nothing could be judged."""
        from flatguard.errors import FlatguardError

        if isinstance(excinfo.value, FlatguardError):
            return _unjudged(self._gate.name, excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """As pytest shows it."""
        return self.path, None, f"{self._gate.name}: {self.name}"


class _Gate:
    """A config whose run is judged once in this process."""

    def __init__(self, config: pytest.Config, name: str, loaded: Config):
        from flatguard.gate.config import find_config

        self._pytest, self.name, self.config = config, name, loaded
        self.file = find_config(_config_file(config, name)).resolve()
        self._judged: Judged | None = None
        self._error: Exception | None = None

    def judged(self, properties: list[tuple[str, object]]) -> Judged:
        """The outcomes; the first test attacks, or waits for the worker that does."""
        from flatguard.errors import FlatguardError

        if self._error is not None:
            raise self._error
        if self._judged is None:
            try:
                self._judged = _through(self._pytest, self.config)
            except FlatguardError as error:
                self._error = error
                raise
        _tell(properties, self.name, self._judged)
        return self._judged


@pytest.fixture
def flatguard(request: pytest.FixtureRequest) -> FlatguardFixture:
    """Holds a model to a config: `flatguard.check("configs/release.yaml")`."""
    return FlatguardFixture(request)


class FlatguardFixture:
    """What the fixture `flatguard` is."""

    def __init__(self, request: pytest.FixtureRequest):
        self._request = request

    def check(
        self,
        config: str | Path | None = None,
        *,
        model: Any = None,
        attack: str | None = None,
        data: Any = None,
        **changes: Any,
    ) -> Judged:
        """Evaluate, and fail the test unless the gate lets it pass.

        Args:
            config: a config's path or name; None is an empty one.
            model: a name or path as on the command line, a module that takes images in [0, 1],
                or a Target; in place of the config's.
            attack: in place of the config's.
            data: a pair of images in [0, 1] and labels, or a data set's name.
            **changes: other keys of a config, and of its `gate`: `eps="8/255"`,
                `min_robust_accuracy=0.4`.

        Returns:
            The run, its verdict and all outcomes.
        """
        __tracebackhide__ = True
        from flatguard.errors import FlatguardError

        name = str(config) if isinstance(config, str | Path) else "flatguard.check"
        named = {"attack": attack, "model": model if isinstance(model, str) else None}
        named["dataset"] = data if isinstance(data, str) else None
        changes |= {key: value for key, value in named.items() if value is not None}
        mistake = ""
        try:
            judged = _through(
                self._request.config, _asked(self._request.config, config, changes),
                model=None if isinstance(model, str) else model,
                data=None if isinstance(data, str) else data,
            )  # fmt: skip
        except FlatguardError as error:
            mistake = _unjudged(name, error)
        if mistake:  # outside of `except`: pytest would show the error's own traceback too
            pytest.fail(mistake, pytrace=False)
        _tell(self._request.node.user_properties, name, judged)
        self._request.node.add_report_section("call", "flatguard", _provenance(judged))
        if judged.shut:
            texts = [f"{outcome.label} {outcome.text}" for outcome in judged.shut]
            pytest.fail("\n\n".join([f"{name}: the gate is shut", *texts]), pytrace=False)
        return judged


def _asked(pytest_config: pytest.Config, config: Any, changes: dict[str, Any]) -> Config:
    """What `check` was given, as one config."""
    from flatguard.errors import UsageError
    from flatguard.gate.config import Config, load_config

    if not isinstance(config, str | Path | None):
        raise UsageError(
            f"expected a config's path or name, got {type(config).__name__}; keys are given one by "
            'one: check(eps="8/255")'
        )
    base = Config() if config is None else load_config(_config_file(pytest_config, str(config)))
    return _limited(pytest_config, base.with_(**changes))


def _through(config: pytest.Config, gate: Config, **given: Any) -> Judged:
    from flatguard.gate.gate import pass_through

    return pass_through(gate, _cache(config), command=sys.argv, **given)


def _cache(config: pytest.Config) -> RunCache:
    from flatguard.gate.cache import RunCache

    named = config.getoption("--flatguard-cache") or config.getini("flatguard_cache")
    if named:
        folder = config.invocation_params.dir / named
    elif hasattr(config, "cache") and config.cache is not None:
        folder = config.cache.mkdir("flatguard")
    else:
        folder = config.rootpath / ".flatguard_cache"
    fresh = bool(config.getoption("--flatguard-fresh"))
    return RunCache(folder, config.stash[SESSION], fresh=fresh)


def _provenance(judged: Judged) -> str:
    how = "taken from the cache and judged again" if judged.cached else "attacked now"
    if judged.why is not None:
        how += f", because the model changed: {judged.why}"
    return f"{how}: {judged.run.path}"


def _unjudged(name: str, error: Exception) -> str:
    from flatguard.errors import BudgetSpent

    word = "inconclusive: " if isinstance(error, BudgetSpent) else ""
    return f"{name}: {word}{error}"


def _tell(properties: list[tuple[str, object]], name: str, judged: Judged) -> None:
    """Send the outcomes to whoever writes the summary: under xdist, another process."""
    if not _on_github():
        return
    from flatguard.gate.github import run_summary

    told = {
        "name": name,
        "run": str(judged.run.path),
        "markdown": run_summary(name, judged.run, judged.verdict, judged.outcomes),
        "outcomes": [outcome.as_dict() for outcome in judged.outcomes],
    }
    properties.append((PROPERTY, json.dumps(told)))


def _on_github() -> bool:
    return bool(os.environ.get("GITHUB_STEP_SUMMARY"))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """On GitHub, write the step summary and the annotations: once for each run."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # its reports go to the process that started it
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == PROPERTY:
                    found = json.loads(value)
                    told[found["name"], found["run"]] = found
    if not told:
        return
    from flatguard.gate.github import announce, errors_of
    from flatguard.gate.outcome import Outcome

    for found in told.values():
        all_of_it = [Outcome(**outcome) for outcome in found["outcomes"]]
        for line in announce(found["markdown"], errors_of(found["name"], all_of_it)):
            terminalreporter.write_line(line)
