"""Studies of prompts take a language model, or a run that is there, and nothing of images."""

import json
from pathlib import Path

import pytest
from support.language_models import save

from flatguard.cli.app import main
from flatguard.errors import UsageError
from flatguard.studies import find_study
from flatguard.studies.reproduce import reproduce, reproduce_from_runs

pytest.importorskip("nanogcg")


def test_a_run_or_a_model_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(tmp_path / "model")
    study = find_study("walter-fig15")
    assert study.prompts is not None
    short = study.prompts.model_copy(update={"steps": 2, "args": {"search_width": 4, "topk": 8}})
    monkeypatch.setattr(
        "flatguard.studies.reproduce.find_study",
        lambda _: study.model_copy(update={"prompts": short}),
    )
    result = reproduce("walter-fig15", [f"hf:{folder}"], n_examples=3, seed=4)
    assert result.shown is not None
    assert result.shown.protocol == "gcg (2 steps, search_width=4)"
    assert (result.shown.samples, result.shown.seed) == (3, 4)
    (kept,) = Path("reports").iterdir()
    assert main_code("reproduce", "walter-fig15", "--runs", str(kept), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["claims"] == json.loads(result.model_dump_json())["claims"]


def main_code(*typed: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(typed))
    return int(caught.value.code or 0)


def test_what_belongs_to_images_is_refused(tmp_path: Path) -> None:
    for models, more, said in (
        ([], {}, "expected --runs FOLDER of a run on prompts, or one --model, got 0"),
        (["smollm2"], {"resize": "224"}, "--resize belongs to images"),
        (["smollm2"], {"data": "demo"}, "--dataset belongs to images"),
        (["demo"], {}, "expected a language model"),
    ):
        with pytest.raises(UsageError, match=said):
            reproduce("walter-fig15", models, **more)
    with pytest.raises(UsageError, match="expected one run on prompts, got 2"):
        reproduce_from_runs("walter-fig15", [tmp_path, tmp_path])


def test_the_studys_prompts_are_ten_and_harmless() -> None:
    from importlib.resources import as_file, files

    from flatguard.data.prompt_file import read_prompts

    study = find_study("walter-fig15")
    assert study.prompts is not None
    with as_file(files("flatguard.studies").joinpath(study.prompts.file)) as file:
        pairs = read_prompts(file)
    assert len(pairs) == study.samples == 10
    assert study.prompts.args["search_width"] == 32
