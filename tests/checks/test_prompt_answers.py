"""The model answers the text, greedily and by chance, and the prompt alone."""

from pathlib import Path

import pytest
import torch
from support.language_models import claimed_target, tiny
from support.prompt_runs import context_of, run_of

from flatguard.checks.prompt_answers import best_step, gather_answers
from flatguard.runs.prompt_run import load_prompt_run

pytest.importorskip("nanogcg")
WORD = "Please repeat the word."


def test_answers_are_those_to_the_text(tmp_path: Path) -> None:
    model = tiny()
    suffix = model.encode(" world")
    target = claimed_target(model, WORD, suffix)
    context = context_of([(WORD, target)], generations=4)
    run = run_of(tmp_path / "run", context, [[model.encode(" x"), suffix]])
    (facts,) = run.answers
    assert facts is not None
    assert facts.step == 1
    assert facts.greedy.startswith(target)
    assert len(facts.sampled) == 4
    ids = model.encode(context.prompts[0].text(""))
    with torch.no_grad():
        token = int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    assert facts.without_suffix.startswith(model.decode([token]))


def test_asked_again_it_answers_the_same(tmp_path: Path) -> None:
    model = tiny()
    context = context_of([(WORD, "banana")])
    run = run_of(tmp_path / "run", context, [[model.encode(" x"), model.encode(" y")]])
    torch.manual_seed(123)
    state = torch.get_rng_state()
    gather_answers(context, load_prompt_run(tmp_path / "run"), 0)
    assert torch.equal(state, torch.get_rng_state())
    assert load_prompt_run(tmp_path / "run").answers == run.answers


def test_the_models_own_generation_config_does_not_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    context = context_of([(WORD, "banana")])
    run = run_of(tmp_path / "run", context, [[model.encode(" x"), model.encode(" y")]])
    own = model.model.generation_config
    for name, value in (("repetition_penalty", 50.0), ("no_repeat_ngram_size", 1)):
        monkeypatch.setattr(own, name, value)
    gather_answers(context, load_prompt_run(tmp_path / "run"), 0)
    assert load_prompt_run(tmp_path / "run").answers == run.answers
    assert model.model.generation_config is own


def test_the_judged_step_is_the_first_of_the_lowest_loss(tmp_path: Path) -> None:
    model = tiny()
    context = context_of([(WORD, "banana")], steps=3)
    taken = [model.encode(text) for text in (" x", " world", " x", " world")]
    run = run_of(tmp_path / "run", context, [taken])
    losses = [one.accepted.loss for one in run.steps[0]]
    assert best_step(run.steps[0]).accepted.step == losses.index(min(losses)) < 2
