"""The options of an attack on prompts are checked once."""

import pytest

from flatguard.errors import UsageError
from flatguard.prompt_request import GENERATIONS, STEPS, PromptRequest, paired
from flatguard.request import validated

PAIR = {"prompt": "Say hello.", "target": "Sure"}


def test_defaults_and_what_decides_the_evidence() -> None:
    request = validated(PromptRequest, {"model": "tiny", "prompts": [PAIR]})
    assert (request.steps, request.generations, request.attack) == (STEPS, GENERATIONS, "gcg")
    limited = request.model_copy(update={"max_minutes": 3.0, "tolerance": 0.2})
    assert limited.decisive() == request.decisive()
    assert limited.limits.max_minutes == 3.0
    assert request.model_copy(update={"seed": 1}).decisive() != request.decisive()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"steps": 0}, "--steps: "),
        ({"generations": 0}, "--generations: "),
        ({"seed": -1}, "--seed: "),
        ({"prompts": []}, "--prompts: "),
        ({"step": 3}, "--step: there is no such option; nearest: steps"),
    ],
)
def test_a_wrong_option_is_one_line(more: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        validated(PromptRequest, {"model": "tiny", "prompts": [PAIR], **more})


def test_one_target_is_that_of_all_prompts() -> None:
    assert [one.target for one in paired(["a", "b"], ["t"])] == ["t", "t"]
    assert [one.target for one in paired(["a", "b"], ["s", "t"])] == ["s", "t"]
    for prompts, targets, said in (
        ([], ["t"], "--prompt: expected a text, got none"),
        (["a"], [], "--target: expected a text, got none"),
        (["a", "b", "c"], ["s", "t"], "one for each of 3, got 2"),
    ):
        with pytest.raises(UsageError, match=said):
            paired(prompts, targets)
