"""The files of a run on prompts hold what they must; anything else is damage."""

import pytest
from pydantic import ValidationError

from flatguard.recording.prompt_recorder import AcceptedSuffix
from flatguard.runs.prompt_facts import PromptManifest, PromptPlan, StepFacts

ACCEPTED = AcceptedSuffix(1, (5, 6), "ab", True, (1.0, 2.0), (0.5, 1.5), (0.6, 0.7), (8, 9), False)
MANIFEST = {
    "created": "2026-01-02T03:04:05+00:00", "command": ["flatguard"],
    "request": {"model": "tiny", "prompts": [{"prompt": "a", "target": "b"}]},
    "attack_args": {"topk": 8},
    "model": {
        "name": "tiny", "source": "here", "weights_sha256": "0", "vocabulary": 9, "features": 2,
        "tied": True, "log_weight_norm_squared": 1.5,
    },
    "plans": [{"before": [1], "after": [], "target": [2]}],
    "versions": {"torch": "2"}, "device": {"type": "cpu", "threads": 1},
}  # fmt: skip


def manifest(**changes: object) -> PromptManifest:
    return PromptManifest.model_validate({**MANIFEST, **changes}).identified()


def test_the_loss_is_the_mean_over_the_tokens() -> None:
    assert ACCEPTED.loss == 1.0
    facts = StepFacts(run="r", prompt=0, forwards=3, accepted=ACCEPTED)
    assert StepFacts.model_validate_json(facts.model_dump_json()) == facts


def test_a_step_needs_a_number_for_each_token() -> None:
    content = StepFacts(run="r", prompt=0, forwards=3, accepted=ACCEPTED).model_dump(mode="json")
    content["accepted"]["losses"] = [0.5]
    with pytest.raises(ValidationError, match="not one number for each token"):
        StepFacts.model_validate(content)


def test_the_identity_is_that_of_what_decides_the_evidence() -> None:
    first = manifest()
    assert manifest(created="later", command=["other"]).identity == first.identity
    request = {**MANIFEST["request"], "seed": 4}  # type: ignore[dict-item]
    assert manifest(request=request).identity != first.identity
    assert manifest(attack_args={"topk": 9}).identity != first.identity


def test_a_manifest_has_a_plan_for_each_prompt() -> None:
    with pytest.raises(ValidationError, match="not one plan for each prompt"):
        manifest(plans=[])
    for threads in (None, 0, 10**9):
        with pytest.raises(ValidationError, match="no such number of threads"):
            manifest(device={"type": "cpu", "threads": threads})
    with pytest.raises(ValidationError, match="no type"):
        manifest(device={"threads": 1})
    with pytest.raises(ValidationError):
        PromptPlan(before=(1,), after=(), target=())
