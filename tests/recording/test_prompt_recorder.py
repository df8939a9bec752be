"""A user's own loop: every accepted suffix is measured, as text or as tokens."""

import pytest
import torch
from support.language_models import claimed_target, llama, tiny, tokenizer

import flatguard
from flatguard.errors import ModelError, UsageError
from flatguard.geometry.token_sharpness import log_mean_kappa
from flatguard.recording.prompt_recorder import COLUMNS
from flatguard.targets.language_model import language_model


def test_a_loop_of_ones_own_is_recorded() -> None:
    model = tiny()
    recorder = flatguard.PromptRecorder(model, "Say hello to the world.", "Sure, here is")
    for suffix in (" x x", [266, 271], model.encode(" hello")):
        recorder.accept(suffix)
    table = recorder.trajectory()
    assert tuple(table.columns) == COLUMNS
    assert table["step"].tolist() == [0, 1, 2]
    assert table["suffix"].tolist() == [" x x", "world", " hello"]
    for step, row in zip(recorder.steps, table.itertuples(), strict=True):
        prompt = recorder.prompt
        direct = model.geometry(prompt.ids(step.suffix), list(prompt.target))
        assert row.loss == pytest.approx(float(direct.loss.mean()))
        assert row.log_kappa == pytest.approx(log_mean_kappa(direct.log_kappa.tolist()))


def test_a_success_is_claimed_where_every_target_token_is_the_most_likely() -> None:
    model, prompt = tiny(), "Please repeat the word."
    suffix = model.encode(" world")
    target = claimed_target(model, prompt, suffix)
    recorder = flatguard.PromptRecorder(model, prompt, target)
    assert recorder.accept(suffix).claimed
    assert not recorder.accept(" x x").claimed


def test_what_cannot_be_measured_is_refused() -> None:
    recorder = flatguard.PromptRecorder(tiny(), "Say hello.", "Sure")
    with pytest.raises(UsageError, match="tiny takes 256"):
        recorder.accept([9] * 300)
    broken = llama()
    model = language_model(broken, tokenizer(), "broken", "here")
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="broken gives logits that are not finite"):
        flatguard.PromptRecorder(model, "Say hello.", "Sure").accept(" x")
    assert recorder.steps == []
