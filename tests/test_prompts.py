"""`evaluate_prompts` and `resume_prompts`: from prompts to a judged run, also after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.language_models import save, tiny
from support.listeners import Listener

import flatguard
from flatguard.errors import FlatguardError, RunFolderError, UsageError
from flatguard.reporting.prompt_report import PAGE, REPORT
from flatguard.runs.prompt_run import PromptRun, load_prompt_run

pytest.importorskip("nanogcg")
PAIRS = [("Say hello to the world.", "Sure"), ("Please repeat the word.", "banana")]
SMALL = {"steps": 3, "attack_args": {"search_width": 4, "topk": 8}, "generations": 2}


def evidence(folder: Path) -> dict[str, bytes]:
    """All files of the evidence but the manifest, which has a time and a command."""
    files = sorted((folder / "evidence" / "prompts").rglob("*.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_every_accepted_suffix_is_recorded_and_judged(tmp_path: Path) -> None:
    listener = Listener()
    run = flatguard.evaluate_prompts(
        tiny(), PAIRS, out=tmp_path / "run", progress=listener, **SMALL
    )
    assert run.complete
    assert [len(steps) for steps in run.steps] == [4, 4]
    assert {PAGE, REPORT} <= {file.name for file in run.path.iterdir()}
    assert "2 prompts; gcg with 4 candidates a step, 3 steps" in listener.lines[0]
    assert "prompt 2 of 2: loss" in listener.lines[-1]
    again = flatguard.evaluate_prompts(tiny(), PAIRS, out=tmp_path / "again", **SMALL)
    assert evidence(tmp_path / "run") == evidence(again.path)


def test_the_prompts_do_not_depend_on_each_other(tmp_path: Path) -> None:
    """More prompts, or fewer steps, change no step of the others."""
    both = flatguard.evaluate_prompts(tiny(), PAIRS, out=tmp_path / "both", **SMALL)
    short = {**SMALL, "steps": 2}
    one = flatguard.evaluate_prompts(tiny(), PAIRS[:1], out=tmp_path / "one", **short)
    assert [s.accepted for s in one.steps[0]] == [s.accepted for s in both.steps[0]][:3]


def test_a_run_that_was_cut_goes_on_at_its_last_accepted_step(tmp_path: Path) -> None:
    whole = flatguard.evaluate_prompts(tiny(), PAIRS, out=tmp_path / "whole", **SMALL)
    cut = tmp_path / "cut"
    shutil.copytree(whole.path, cut)
    shutil.rmtree(cut / "evidence" / "prompts" / "00001")
    for name in ("step-00003.json", "answers.json"):
        (cut / "evidence" / "prompts" / "00000" / name).unlink()
    resumed = flatguard.resume_prompts(cut, model=tiny())
    assert resumed.complete
    assert evidence(cut) == evidence(whole.path)


def test_a_killed_process_loses_at_most_one_step(tmp_path: Path) -> None:
    save(tmp_path / "model")
    typed = [
        sys.executable, "-m", "flatguard", "evaluate", "--model", f"hf:{tmp_path / 'model'}",
        "--attack", "gcg", "--prompt", PAIRS[0][0], "--target", PAIRS[0][1], "--steps", "30",
        "--attack-arg", "search_width=4", "--attack-arg", "topk=8", "--quiet",
    ]  # fmt: skip
    folder = tmp_path / "run"
    process = subprocess.Popen([*typed, "--out", str(folder)])
    steps = folder / "evidence" / "prompts" / "00000"
    while not (steps / "step-00004.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = load_prompt_run(folder)
    known = killed.steps[0]
    assert 5 <= len(known) < 31
    resumed = flatguard.resume_prompts(folder)
    assert resumed.complete
    assert resumed.steps[0][: len(known)] == known
    whole = subprocess.run([*typed, "--out", str(tmp_path / "whole")], check=False)
    assert whole.returncode == 0
    assert evidence(folder) == evidence(tmp_path / "whole")


def test_a_spent_budget_is_inconclusive_and_goes_on(tmp_path: Path) -> None:
    listener = Listener()
    run = flatguard.evaluate_prompts(
        tiny(), PAIRS, out=tmp_path / "run", progress=listener, max_forwards=15, **SMALL
    )
    assert not run.complete
    assert any("--max-forwards) was spent; flatguard resume" in line for line in listener.lines)
    report = (run.path / REPORT).read_text()
    assert '"verdict": "inconclusive"' in report


def test_nothing_is_left_after_a_mistake(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for pairs, more in (
        ([("", "Sure")], {}),
        ([("Say hello.", "")], {}),
        ([("a b c " * 100, "Sure")], {}),
        (PAIRS, {"attack": "pgd"}),
        (PAIRS, {"attack_args": {"width": 4}}),
        (PAIRS, {"steps": 0}),
        (PAIRS, {"device": "cuda:99"}),
    ):
        with pytest.raises(FlatguardError):
            flatguard.evaluate_prompts(tiny(), pairs, out=out, **{**SMALL, **more})
    with pytest.raises(UsageError, match="kept in a local folder"):
        flatguard.evaluate_prompts(tiny(), PAIRS, out="s3://bucket/run")
    assert not out.exists()
    flatguard.evaluate_prompts(tiny(), PAIRS[:1], out=out, **{**SMALL, "steps": 1})
    with pytest.raises(RunFolderError, match="exists already"):
        flatguard.evaluate_prompts(tiny(), PAIRS, out=out, **SMALL)


@pytest.mark.llm
def test_smollm2_is_attacked_and_its_closed_form_is_that_of_all_logits(tmp_path: Path) -> None:
    """Two steps of four candidates, a minute; κ again from all logits in float64."""
    import torch

    from flatguard.geometry.sharpness import log_relative_sharpness

    pairs = [("What do bees make?", "Sure, here is")]
    args = {"search_width": 4, "batch_size": 4}
    run = flatguard.evaluate_prompts(
        "smollm2", pairs, out=tmp_path / "run", steps=2, attack_args=args, generations=2
    )
    assert run.complete
    model = flatguard.load_language_model("smollm2")
    (plan,) = run.manifest.plans
    assert model.decode(list(plan.before)).count("<|im_start|>") == 2
    assert run.steps[0][0].accepted.survives
    last = run.steps[0][-1].accepted
    ids = torch.tensor([[*plan.before, *last.suffix, *plan.after, *plan.target]])
    with torch.no_grad():
        states = model.model.model(input_ids=ids).last_hidden_state[0]
    phi = states[-len(plan.target) - 1 : -1].double()
    weight = model.head.weight.detach().double()
    truth = log_relative_sharpness(phi @ weight.T, phi, weight)
    assert torch.allclose(torch.tensor(last.log_kappa).double(), truth, rtol=0, atol=1e-5)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run: PromptRun = flatguard.evaluate_prompts(
        tiny(), PAIRS[:1], out=tmp_path / "run", **{**SMALL, "steps": 1}
    )
    before = evidence(run.path)
    flatguard.resume_prompts(run, model=tiny())
    assert evidence(run.path) == before
