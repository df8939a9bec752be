"""The folder of a run on prompts is read as it was written, and damage is named."""

import json
from pathlib import Path

import pytest
from support.language_models import tiny
from support.prompt_runs import context_of, run_of

from flatguard.errors import RunFolderError
from flatguard.runs.prompt_run import PromptRun, is_prompt_run, load_prompt_run
from flatguard.runs.run import load_run

pytest.importorskip("nanogcg")


@pytest.fixture
def run(tmp_path: Path) -> PromptRun:
    taken = [tiny().encode(" x"), tiny().encode(" y")]
    return run_of(tmp_path / "run", context_of([("Say hello.", "Sure")]), [taken])


def first_step(run: PromptRun) -> Path:
    return run.path / "evidence" / "prompts" / "00000" / "step-00000.json"


def test_what_was_written_is_read(run: PromptRun) -> None:
    assert is_prompt_run(run.path)
    assert not is_prompt_run(run.path.parent)
    assert run.complete
    assert [one.accepted.step for one in run.steps[0]] == [0, 1]
    assert not list(run.path.rglob("*.tmp"))


def test_the_trajectory_has_a_row_for_each_prompt_and_step(run: PromptRun) -> None:
    table = run.trajectory
    assert table[["prompt", "step"]].values.tolist() == [[0, 0], [0, 1]]
    assert table["loss"].tolist() == [one.accepted.loss for one in run.steps[0]]
    assert table["suffix"].tolist() == [" x", " y"]


def test_a_damaged_step_is_named(run: PromptRun) -> None:
    file = first_step(run)
    content = json.loads(file.read_text())
    content["accepted"]["losses"][0] += 1.0
    file.write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"step-00000\.json is damaged: its checksum"):
        _ = load_prompt_run(run.path).steps


def test_a_missing_step_is_named(run: PromptRun) -> None:
    first_step(run).unlink()
    with pytest.raises(RunFolderError, match="step-00000"):
        _ = load_prompt_run(run.path).steps


def test_a_step_of_another_prompt_or_run_is_refused(run: PromptRun) -> None:
    second = first_step(run).with_name("step-00001.json")
    second.write_bytes(first_step(run).read_bytes())
    with pytest.raises(RunFolderError, match="belongs to another step"):
        _ = load_prompt_run(run.path).steps


def test_a_run_on_images_and_one_on_prompts_are_told_apart(run: PromptRun, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is a run on the prompts of a language model"):
        load_run(run.path)
    with pytest.raises(RunFolderError, match="is no run on prompts"):
        load_prompt_run(tmp_path)


def test_another_format_is_refused(run: PromptRun) -> None:
    file = run.path / "evidence" / "prompts.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    with pytest.raises(RunFolderError, match="has format 99, this flatguard reads format 1"):
        load_prompt_run(run.path)


def test_what_a_killed_process_left_half_written_is_removed(run: PromptRun) -> None:
    left = first_step(run).with_name(".step-00002.json.12345")
    left.write_text("{")
    assert load_prompt_run(run.path).steps == run.steps
    run.sweep()
    assert not left.exists()


def test_a_link_in_the_folder_is_refused(run: PromptRun, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(first_step(run).read_bytes())
    first_step(run).unlink()
    first_step(run).symlink_to(secret)
    with pytest.raises(RunFolderError, match="is a link"):
        _ = load_prompt_run(run.path).steps
