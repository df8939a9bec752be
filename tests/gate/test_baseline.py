"""Baselines: a fall beyond chance on the same samples, and one that is not."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from scipy.stats import binom
from support import digits

import flatguard
from flatguard.cli.app import main
from flatguard.errors import RunFolderError, UsageError
from flatguard.gate.baseline import FEWEST, Baseline, _word, baseline_of, compare, load, save


def run_of(files: Path, folder: str, **changes: Any) -> flatguard.Run:
    fields: dict[str, Any] = {
        "attack_args": {"steps": 20, "alpha": 0.02}, "eps": digits.EPS, "n_examples": 100,
        **changes,
    }  # fmt: skip
    return flatguard.evaluate(
        str(files / "digits.safetensors"), "torchattacks:PGD", data=str(files / "digits.npz"),
        arch=f"{digits.__file__}:digits_net", out=folder, **fields,
    )  # fmt: skip


@pytest.fixture
def run(digits_files: Path) -> flatguard.Run:
    return run_of(digits_files, "run")


def turned(baseline: Baseline, count: int, to: str) -> Baseline:
    """The same baseline with so many samples turned."""
    marks = list(baseline.survived)
    for i in [i for i, mark in enumerate(marks) if mark != to][:count]:
        marks[i] = to
    return baseline.model_copy(update={"survived": "".join(marks)})


def test_the_same_run_is_no_worse(run: flatguard.Run) -> None:
    file = save(run, Path("baselines"), None)
    assert file == Path("baselines/digits.json")
    assert file.stat().st_size < 4000
    found = compare(run, load(file))
    assert (found.word, found.exit_code, found.fall, found.p) == ("no worse", 0, 0.0, 1.0)
    assert compare(run, load(run.path)) == found
    with pytest.raises(RunFolderError, match="exists already"):
        save(run, Path("baselines"), None)
    assert baseline_of(run).robust().mean() == run.summary["corrected_robust_accuracy"]


def test_a_worse_model_fails_and_chance_does_not(run: flatguard.Run) -> None:
    """The baseline survives on k more samples than the run: k of k discordant pairs are lost."""
    now = baseline_of(run)
    for k in range(12):
        found = compare(run, turned(now, k, "1"), tolerance=0.02)
        p = min(1.0, 2 * binom.pmf(0, k, 0.5)) if k else 1.0
        assert found.p == pytest.approx(p)
        assert found.fall == pytest.approx(k / 100)
        expected = "no worse" if k <= 2 else "worse" if p < 0.05 else "inconclusive"
        assert (found.lost, found.word) == (k, expected)
    assert compare(run, turned(now, 20, "0")).word == "no worse"
    assert compare(run, turned(now, 8, "1"), tolerance=0.08).word == "no worse"


def test_a_model_that_is_really_worse(digits_files: Path, run: flatguard.Run) -> None:
    """Other weights on the same samples: a part of the features is gone."""
    weights = load_file(digits_files / "digits.safetensors")
    weights["5.weight"][:32] = 0.0
    Path("worse").mkdir()
    save_file(weights, "worse/digits.safetensors")
    Path("worse/digits.npz").write_bytes((digits_files / "digits.npz").read_bytes())
    worse = run_of(Path("worse"), "worse/run")
    found = compare(worse, baseline_of(run))
    assert (found.word, found.exit_code) == ("worse", 1)
    assert compare(run, baseline_of(worse)).word == "no worse"


@pytest.mark.parametrize(
    ("fall", "p", "survived", "word"),
    [
        (0.0, 1.0, FEWEST, "no worse"),
        (0.0, 1.0, FEWEST - 1, "inconclusive"),
        (0.0, 1.0, 0, "inconclusive"),
        (0.10, 0.04, 50, "worse"),
        (0.10, 0.06, 50, "inconclusive"),
        (-0.3, 0.001, 50, "no worse"),
    ],
)
def test_the_rule(fall: float, p: float, survived: int, word: str) -> None:
    assert _word(fall, p, survived, 0.02) == word


@pytest.mark.parametrize(
    ("changes", "verdict", "word", "exit_code"),
    [
        ({"logit_scale": 100.0}, "masked", "not believed", 1),
        ({"checks": "none"}, "inconclusive", "inconclusive", 3),
    ],
)
def test_a_number_that_does_not_stand_is_no_baseline_and_fails(
    digits_files: Path, changes: dict[str, Any], verdict: str, word: str, exit_code: int
) -> None:
    run = run_of(digits_files, "run", **changes)
    with pytest.raises(UsageError, match=f"run is {verdict}, so it cannot be a baseline"):
        save(run, Path("baselines"), None)
    file = save(run, Path("baselines"), None, anyway=True)
    found = compare(run, load(file))
    assert (found.word, found.exit_code) == (word, exit_code)
    assert found.sentence.startswith(
        f"{word}: the evidence does not support this run's own number; {verdict}"
    )


def test_a_baseline_that_was_edited_is_refused(run: flatguard.Run) -> None:
    whole = baseline_of(run)
    for field, change in {
        "survived": {"survived": whole.survived[:-1] + "x"},
        "survived.": {"survived": whole.survived[:-1]},
        "protocol": {"protocol": {"eps": 0.1}},
    }.items():
        Path("edited.json").write_text(whole.model_copy(update=change).model_dump_json())
        with pytest.raises(RunFolderError, match=rf"edited\.json is damaged: {field.strip('.')}"):
            load(Path("edited.json"))


def test_other_data_and_other_protocols_are_refused(digits_files: Path, run: flatguard.Run) -> None:
    before = baseline_of(run)
    changes: dict[str, dict[str, Any]] = {
        "other images": {"n_examples": 50},
        "another eps: 0.1, not 0.2": {"eps": 0.2},
        "another seed": {"seed": 1},
        "another attack_args": {"attack_args": {"steps": 19, "alpha": 0.02}},
        "other checks": {},
    }
    for number, (message, change) in enumerate(changes.items()):
        other = run_of(digits_files, f"other{number}", checks="none", **change)
        with pytest.raises(UsageError, match=message):
            compare(other, before)


def test_incomplete_damaged_and_missing(digits_files: Path) -> None:
    short = run_of(digits_files, "short", batch_size=20, max_forwards=900)
    with pytest.raises(RunFolderError, match="incomplete"):
        baseline_of(short)
    Path("bad.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"bad\.json is damaged"):
        load(Path("bad.json"))
    with pytest.raises(RunFolderError, match=r"no baseline bed\.json; nearest: bad\.json"):
        load(Path("bed.json"))


def test_on_the_command_line(
    run: flatguard.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["baseline", *arguments])
        return int(caught.value.code or 0)

    assert call("save", "run", "--name", "release-1") == 0
    assert capsys.readouterr().out == "baselines/release-1.json\n"
    assert call("save", "run", "--name", "../up") == 2
    assert call("save", "run", "--name", "") == 2
    assert call("check", "run", "--against", "baselines/release-1.json") == 0
    assert capsys.readouterr().out.startswith("no worse: robust accuracy went from ")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("better.json").write_text(turned(baseline_of(run), 9, "1").model_dump_json())
    assert call("check", "run", "--against", "better.json") == 1
    out = capsys.readouterr().out
    assert "more than chance explains (p = 0.0039)" in out
    assert "::error title=baseline better.json::worse: robust accuracy went from " in out
    assert Path("summary.md").read_text("utf-8").startswith("### baseline better.json\n\nworse: ")
    Path("better.json").write_text(turned(baseline_of(run), 4, "1").model_dump_json())
    assert call("check", "run", "--against", "better.json", "--json") == 3
    assert '"word":"inconclusive"' in capsys.readouterr().out
    assert call("check", "run", "--against", "no.json") == 2
