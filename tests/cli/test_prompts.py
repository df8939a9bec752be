"""`flatguard evaluate`, `resume` and `report` on the prompts of a language model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Result
from support.language_models import llama, save

pytest.importorskip("nanogcg")
PROMPT = ["--prompt", "Say hello to the world.", "--target", "Sure"]
SMALL = [
    "--attack", "gcg", "--steps", "2", "--attack-arg", "search_width=4", "--attack-arg", "topk=8",
    "--generations", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def evaluate(cli: Callable[..., Result], folder: Path) -> Callable[..., Result]:
    def call(*more: object) -> Result:
        return cli("evaluate", "--model", f"hf:{folder}", *SMALL, "--out", "run", *more)

    return call


def test_a_prompt_is_attacked_and_judged(evaluate: Callable[..., Result]) -> None:
    shown = evaluate(*PROMPT)
    assert shown.code == 0, shown.err
    assert "1 prompt; gcg with 4 candidates a step, 2 steps; 320 tokens; cpu; seed 0" in shown.out
    assert "prompt 1: loss " in shown.out
    assert "consistent: gcg claims no success on 1 prompt" in shown.out
    assert shown.out.rstrip().endswith("report.html")


def test_json_is_one_object(evaluate: Callable[..., Result]) -> None:
    shown = evaluate(*PROMPT, "--json")
    report = json.loads(shown.out)
    assert report["verdict"]["prompts"] == 1
    assert len(report["paths"][0]["loss"]) == 3
    assert report["paths"][0]["suffixes"][0] == " x" * 20


def test_prompts_come_from_a_file(evaluate: Callable[..., Result]) -> None:
    Path("prompts.csv").write_text("prompt,target\nSay hello.,Sure\nRepeat it.,banana\n")
    shown = evaluate("--prompts", "prompts.csv")
    assert shown.code == 0, shown.err
    assert "gcg claims no success on 2 prompts" in shown.out
    both = evaluate("--prompts", "prompts.csv", *PROMPT)
    assert both.code == 2
    assert "leave --prompt and --target out" in both.err


def test_a_run_is_resumed_and_drawn_again(
    evaluate: Callable[..., Result], cli: Callable[..., Result]
) -> None:
    whole = evaluate(*PROMPT, "--json")
    step = Path("run/evidence/prompts/00000/step-00002.json")
    kept = step.read_bytes()
    step.unlink()
    Path("run/evidence/prompts/00000/answers.json").unlink()
    shown = cli("resume", "run", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out) == json.loads(whole.out)
    assert step.read_bytes() == kept
    assert "2 of 3 steps were done before" in shown.err
    workers = cli("resume", "run", "--workers", "2")
    assert workers.code == 2
    assert "--workers belongs to a run on images, and run is one on prompts" in workers.err
    Path("run/report.html").unlink()
    assert cli("report", "run").code == 0
    assert Path("run/report.html").is_file()
    for option in ("--pack", "--model-card"):
        refused = cli("report", "run", option, "elsewhere")
        assert (refused.code, refused.out) == (2, "")
        assert f"{option} takes runs on images, and run is one on prompts" in refused.err
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--prompt: expected a text, got none"),
        (["--prompt", "Say hello."], "--target: expected a text, got none"),
        (["--prompt", "", "--target", "Sure"], "--prompt: expected a text, got an empty one"),
        (["--prompt", "Say hello.", "--target", " "], "--target: expected a text, got an empty"),
        (["--prompt", "a b c " * 100, "--target", "Sure"], "takes 256; shorten"),
        ([*PROMPT, "--eps", "8/255"], "--eps belongs to an attack on images"),
        ([*PROMPT, "--checks", "full"], "--checks belongs to an attack on images"),
        ([*PROMPT, "--workers", "2"], "--workers belongs to an attack on images"),
        ([*PROMPT, "--attack-arg", "width=3"], "gcg has no argument 'width'"),
        ([*PROMPT, "--device", "cuda:99"], "--device cuda:99 is not available here"),
        (["--prompts", "none.csv"], "no file none.csv"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    evaluate: Callable[..., Result], more: list[str], said: str
) -> None:
    shown = evaluate(*more)
    assert (shown.code, shown.out) == (2, "")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not Path("run").exists()


def test_options_of_prompts_need_prompts(cli: Callable[..., Result]) -> None:
    shown = cli("evaluate", "--model", "demo", "--attack", "apgd-ce", "--steps", "3")
    assert shown.code == 2
    assert "--steps belongs to an attack on prompts" in shown.err


def test_models_that_do_not_fit_are_one_line(
    cli: Callable[..., Result], folder: Path, tmp_path: Path
) -> None:
    bare, headless, other = (tmp_path / name for name in ("bare", "headless", "other"))
    llama().save_pretrained(bare)
    shutil.copytree(folder, headless)
    llama(tie_word_embeddings=False).model.save_pretrained(headless)
    shutil.copytree(folder, other)
    llama(vocab_size=900).save_pretrained(other)
    for name, said in (
        (f"hf:{bare}", "no tokenizer"),
        (f"hf:{headless}", "has no weights for lm_head.weight"),
        (f"hf:{other}", "expected a tokenizer of the model's vocabulary of 900 tokens, got one of"),
        ("demo", "--model: expected a language model"),
    ):
        shown = cli("evaluate", "--model", name, *SMALL, *PROMPT, "--out", "run")
        assert (shown.code, shown.out) == (2, ""), shown.err
        assert said in shown.err
        assert not Path("run").exists()
