"""What holds for every tracker: names, absent libraries, and a run that is kept in any case."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import CHECKPOINT, JUDGED
from support.listeners import Listener

import flatguard
from flatguard.errors import EnvironmentProblem, UsageError
from flatguard.gate.cache import RunCache
from flatguard.gate.config import config_of, schema
from flatguard.gate.gate import pass_through
from flatguard.integrations.trackers import _TRACKERS, log_run
from flatguard.option_values import TRACKERS
from flatguard.request import make_request
from flatguard.runs.run import Run, load_run

FGSM = ["--attack", "foolbox:LinfFastGradientAttack", "--eps", "8/255", "--checks", "none"]


def test_every_name_has_its_tracker() -> None:
    assert set(_TRACKERS) == set(TRACKERS)


@pytest.mark.parametrize("name", ["mlfow", "", "tensorboard,mlflow"])
def test_an_unknown_tracker_is_one_line(name: str, run: Run) -> None:
    with pytest.raises(UsageError, match="--log-to: expected one of mlflow, wandb, tensorboard"):
        log_run(run, name)


def test_a_name_or_several_and_each_once() -> None:
    def given(log_to: Any) -> tuple[str, ...]:
        return make_request(model="m", attack="a", log_to=log_to).log_to

    assert given("mlflow") == given(["mlflow", "mlflow"]) == ("mlflow",)
    assert given(()) == ()
    assert config_of({"log_to": ["wandb"]}).arguments() == {"log_to": ("wandb",)}
    assert "log_to" in schema()["properties"]


@pytest.mark.parametrize("name", TRACKERS)
def test_an_absent_library_is_found_before_the_attack(
    name: str, attacked: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    listener = Listener()
    with pytest.raises(EnvironmentProblem, match=rf"--log-to {name} needs .*flatguard\[{name}\]"):
        attacked(log_to=name, progress=listener)
    assert listener.lines == []
    with pytest.raises(EnvironmentProblem):
        flatguard.audit("no-run", log_to=name)


def test_a_folder_of_wandb_is_not_its_library(
    run: Run, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline runs are kept in ./wandb, which is on the path of a script beside it."""
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed here")
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="wandb is not installed"):
        log_run(run, "wandb")


def test_where_a_run_is_logged_is_no_part_of_it(attacked: Callable[..., Run]) -> None:
    plain = make_request(model="m", attack="a")
    logged = make_request(model="m", attack="a", log_to="mlflow")
    for what in ("evidence", "location", "probes", "verdict", "spending"):
        assert plain.that_decide(what) == logged.that_decide(what)
    assert logged.that_decide("logging") == {"log_to": ["mlflow"]}
    manifest = attacked().manifest
    request = manifest.request.with_(log_to="mlflow")
    changed = manifest.model_copy(update={"request": request})
    assert changed.identified().identity == manifest.identity


def test_a_shard_is_not_logged(attacked: Callable[..., Run], monkeypatch: Any) -> None:
    with pytest.raises(UsageError, match="--log-to: a shard is not judged"):
        attacked(log_to="tensorboard", shard="1/2")


def test_a_run_from_anyone_logs_nothing_when_it_is_resumed(
    attacked: Callable[..., Run], told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request of a folder names no place that the result is sent to."""
    called: list[str] = []
    monkeypatch.setattr("flatguard.integrations.trackers.check_installed", lambda names: None)
    monkeypatch.setattr("flatguard.evaluation.check_installed", lambda names: None)
    monkeypatch.setitem(_TRACKERS, "mlflow", lambda logged: called.append(logged.name) or "there")
    run = attacked(log_to="mlflow")
    assert called == ["run"]
    assert load_run(run.path).request.log_to == ("mlflow",)
    flatguard.audit(run)
    assert called == ["run"]
    flatguard.audit(run, log_to="mlflow")
    assert called == ["run", "run"]
    assert told() == []


def test_a_tracker_that_raises_costs_one_line(
    cli: Any, files: Any, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here and in the files of each tracker: the exit code, the verdict and the report stay."""

    def fails(logged: Any) -> str:
        raise ConnectionError("no route\nto \u202ehost")

    monkeypatch.setattr("flatguard.integrations.trackers.check_installed", lambda names: None)
    monkeypatch.setattr("flatguard.evaluation.check_installed", lambda names: None)
    monkeypatch.setitem(_TRACKERS, "wandb", fails)
    plain = cli(*CHECKPOINT, *FGSM, "--out", "plain", "--quiet")
    logged = cli(*CHECKPOINT, *FGSM, "--out", "logged", "--quiet", "--log-to", "wandb")
    assert plain.code == logged.code in JUDGED
    assert told() == [
        "the run was not logged: wandb: no route; it is kept, log it with flatguard audit logged "
        "--log-to wandb"
    ]
    one, two = load_run("plain"), load_run("logged")
    assert one.summary["sentence"] == two.summary["sentence"]
    assert (two.path / "report.html").is_file()
    with pytest.raises(flatguard.FlatguardError, match=r"^wandb: no route"):
        log_run(two, "wandb")


def test_a_gate_logs_a_run_that_it_kept_too(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr("flatguard.integrations.trackers.check_installed", lambda names: None)
    monkeypatch.setattr("flatguard.evaluation.check_installed", lambda names: None)
    monkeypatch.setitem(_TRACKERS, "mlflow", lambda logged: called.append(logged.key) or "there")
    config = config_of(
        {
            "model": "weights.safetensors", "arch": CHECKPOINT[4], "dataset": "data.npz",
            "attack": "foolbox:LinfFastGradientAttack", "norm": "Linf", "eps": "8/255",
            "checks": "none", "log_to": ["mlflow"],
        }
    )  # fmt: skip
    kept = [pass_through(config, RunCache(tmp_path / "kept", name)).cached for name in "ab"]
    assert kept == [False, True]
    assert called[0] == called[1]
