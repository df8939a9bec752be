"""Class names and templates of zero-shot models."""

from pathlib import Path

import pytest

from flatguard.errors import DataError, UsageError
from flatguard.targets.prompts import read_prompts


def test_names_of_the_data_and_words_of_the_texts(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"0": ["n01", "crane"], "1": ["n02", "crane"]}')
    (tmp_path / "templates.txt").write_text("a {}.\n\nthe {} {\n")
    prompts = read_prompts(tmp_path / "index.json", tmp_path / "templates.txt", "model")
    assert prompts.names == ("n01", "n02")
    assert prompts.of_class(1) == ["a crane.", "the crane {"]
    assert "template 'a {}.' and 1 more" in prompts.note


def test_the_default_template(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    prompts = read_prompts(tmp_path / "names.txt", None, "model")
    assert prompts.examples == ["a photo of a cat.", "a photo of a dog."]


@pytest.mark.parametrize("text", ["a cat", "a {} and {}", "\n", "{0.__class__}"])
def test_templates_that_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "templates.txt").write_text(text)
    with pytest.raises(DataError, match="--templates") as caught:
        read_prompts(tmp_path / "names.txt", tmp_path / "templates.txt", "model")
    assert "\n" not in str(caught.value)


def test_no_classes_or_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model is a zero-shot model"):
        read_prompts(None, None, "model")
    (tmp_path / "names.txt").write_text("cat\n")
    with pytest.raises(DataError, match="at least two"):
        read_prompts(tmp_path / "names.txt", None, "model")
