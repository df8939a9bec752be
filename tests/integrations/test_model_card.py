"""A model card, read back by huggingface_hub."""

from pathlib import Path
from typing import Any

import pytest
from support.reports import HOSTILE, judged

from flatguard.checks.verdict import verdict_of
from flatguard.errors import UsageError
from flatguard.integrations.model_card import update_model_card
from flatguard.runs.run import Run

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

OWN = """---
language: en
license: mit
model-index:
- name: mine
  results:
  - task:
      type: image-classification
    dataset:
      name: noise
      type: noise
    metrics:
    - type: accuracy
      value: 0.5
      name: Robust accuracy, corrected (upper bound)
---

# Mine

A text of my own.

## Limits
"""


def results(file: Path) -> dict[str, Any]:
    card = hub.ModelCard.load(file)
    return {each.metric_name: each for each in card.data.eval_results if each.metric_args}


def test_a_new_card(run: Run) -> None:
    file = Path("cards") / "README.md"
    update_model_card([run], file)
    found, verdict = results(file), verdict_of(run)
    corrected = found["Robust accuracy, corrected (upper bound)"]
    assert corrected.metric_value == verdict.corrected_robust_accuracy
    assert corrected.metric_args["interval"] == list(verdict.corrected_interval)
    assert corrected.metric_args["verdict"] == verdict.verdict
    assert (corrected.metric_args["norm"], corrected.metric_args["eps"]) == ("Linf", "8/255")
    assert found["Clean accuracy"].metric_value == run.summary["clean_accuracy"]
    text = file.read_text("utf-8")
    assert verdict.sentence.split(":")[0] in text
    assert "| corrected (upper bound) |" in text


def test_what_others_wrote_stays_and_ours_is_replaced(run: Run, other: Run) -> None:
    file = Path("README.md")
    file.write_text(OWN)
    update_model_card([other], file)
    update_model_card([run], file)
    text = file.read_text("utf-8")
    assert text.count("## Robustness evaluation") == 1
    assert "A text of my own.\n\n## Limits" in text
    assert text.startswith("---\nlanguage: en\nlicense: mit\n")
    card = hub.ModelCard.load(file)
    assert card.data.model_name == "mine"
    assert [each.metric_value for each in card.data.eval_results if not each.metric_args] == [0.5]
    assert len(results(file)) == len(card.data.eval_results) - 1 == 3
    assert results(file)["Clean accuracy"].metric_value == run.summary["clean_accuracy"]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    update_model_card([judged(tmp_path / "run", names=HOSTILE)], file)
    text = file.read_text("utf-8")
    assert "\u202e" not in text
    body = hub.ModelCard.load(file).text
    assert "<script" not in body
    assert "<img" not in body


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("---\n- a\n- list\n---\n", "is no model card"),
        ("---\na: [\n---\n", "is no model card"),
        (b"\xff\xfe\x00", "is no model card"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_is_no_card_is_left_as_it_is(
    content: str | bytes | None, expected: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "README.md"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError, match=f"--model-card: .*{expected}") as caught:
        update_model_card([run], file)
    assert "\n" not in str(caught.value)
    if content is not None:
        assert file.read_bytes() == (content.encode() if isinstance(content, str) else content)


def test_typed(cli: Any, run: Run) -> None:
    result = cli("report", run.path, "--model-card", "README.md")
    assert (result.code, result.out) == (0, f"{run.path}/report.html\nREADME.md\n")
    assert results(Path("README.md"))
