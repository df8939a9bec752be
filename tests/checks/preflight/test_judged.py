"""Preflight on its own: every question has one finding, and the exit code follows."""

from dataclasses import replace

import pytest
import torch
from support.broken import Around, SetUp
from support.preflight import tried

CHECKS = [
    "clean-accuracy", "determinism", "batch-dependence", "earlier-calls", "input-writes",
    "model-changes", "output", "input-gradient",
]  # fmt: skip


def test_each_question_has_one_finding(good: SetUp) -> None:
    found = tried(good)
    assert [finding.check for finding in found.findings] == CHECKS
    assert (found.exit_code, found.nothing_to_judge) == (0, None)
    assert found.notes == ()


def test_a_warning_keeps_the_exit_code_and_a_useless_accuracy_does_not(good: SetUp) -> None:
    probabilities = replace(good, model=Around(good.model, after=lambda z: z.softmax(1)))
    assert tried(probabilities).exit_code == 0
    found = tried(replace(good, labels=9 - good.labels))
    assert found.exit_code == 3
    assert "reverse order" in (found.nothing_to_judge or "")


def test_a_model_that_gives_no_finite_logits(good: SetUp) -> None:
    """It gives them for the batch of 8 that it is loaded with."""
    later = Around(good.model, after=lambda z: z if len(z) == 8 else z * float("nan"))
    found = tried(replace(good, model=later.eval()))
    assert found.exit_code == 3
    assert found.nothing_to_judge == "the model gives finite logits for no image"
    assert found.facts.clean is None
    assert "pass" not in {f.status for f in found.findings if f.check != "input-writes"}


@pytest.mark.parametrize(("count", "noted"), [(129, True), (128, False), (130, False)])
def test_a_last_batch_of_one_image_is_noted_before_the_attack(
    count: int, noted: bool, good: SetUp
) -> None:
    squeezes = Around(good.model, after=lambda z: z.squeeze()).eval()
    found = tried(replace(good, model=squeezes), n_examples=count, batch_size=128)
    assert bool(found.notes) == noted
    if noted:
        assert "keep the batch dimension" in found.notes[0]
        assert "--batch-size 127" in found.notes[0]


def test_images_without_an_answer_are_noted(good: SetUp) -> None:
    threes = Around(good.model, after=lambda z: z / (z.argmax(dim=1, keepdim=True) != 3).float())
    found = tried(replace(good, model=threes.eval()))
    assert found.facts.clean is not None
    lacking = 200 - len(found.facts.clean.samples)
    assert lacking > 5
    assert found.notes[-1] == f"no finite logits for {lacking} of 200 images: not counted above"


def test_a_mode_that_was_changed_is_noted(good: SetUp) -> None:
    found = tried(replace(good, model=torch.nn.Sequential(good.model).train()))
    assert found.notes == ("the model was in training mode; it is evaluated in eval mode",)
    good.model.eval()
