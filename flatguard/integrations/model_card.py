"""A Hugging Face model card: results in its `model-index`, and a section of its text.

The hub reads the metadata at the head of a repository's README.md, people read the section. Both
are put in place of those of an earlier time; everything else in the file stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatguard.environment.requirements import needed
from flatguard.errors import UsageError, one_line, reason_of
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.markdown import answer_lines, escape_markdown
from flatguard.reporting.report_page import Headline, headlines
from flatguard.reporting.text import visible
from flatguard.runs.json_files import write_text
from flatguard.runs.run import Run

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

_BEGIN, _END = "<!-- flatguard: begin -->", "<!-- flatguard: end -->"
_SECTION = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
_NAMES = {
    "clean": "Clean accuracy",
    "reported": "Robust accuracy, as the attack reports it",
    "corrected": "Robust accuracy, corrected (upper bound)",
}
"""The metrics of a card, by the tones of the report's numbers."""
_MEASURED_BY = "flatguard"


def update_model_card(runs: Sequence[Run], file: Path) -> None:
    """Write the results of runs to a model card; a card that is not there is made.

    A result is an accuracy as a share, with its exact 95% interval, the attack, the budget and
    the verdict. Another run with the same attack and budget on the same data replaces it.

    Args:
        runs: judged runs on images.
        file: of the card, such as `README.md`.

    Raises:
        RunFolderError: a run is damaged, or was not judged yet.
        UsageError: the file cannot be read or written, or its metadata are no YAML.
        EnvironmentProblem: huggingface-hub is not installed.
    """
    with needed("huggingface-hub", "huggingface", "--model-card"):
        import huggingface_hub  # noqa: F401
    judged = [JudgedRun.load(run) for run in runs]
    card = _card(file, judged[0].run.manifest.target.name)
    results = [result for one in judged for result in _results(one)]
    kept = [old for old in card.data.eval_results or [] if _key(old) not in map(_key, results)]
    card.data.eval_results = [*kept, *results]
    card.text = _with_section(card.text, judged)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, str(card))
    except OSError as error:
        raise UsageError(f"--model-card: cannot write {reason_of(error)}") from error


def _card(file: Path, model: str) -> ModelCard:
    from huggingface_hub import ModelCard

    new = f"---\n{{}}\n---\n\n# {escape_markdown(model)}\n"
    try:
        content = file.read_text("utf-8") if file.exists() else new
        card = ModelCard(content)
    except OSError as error:
        raise UsageError(f"--model-card: cannot read {reason_of(error)}") from error
    except Exception as error:  # its parsers raise their own
        raise UsageError(
            f"--model-card: {file} is no model card with YAML metadata at its head: "
            f"{one_line(error)}"
        ) from error
    card.data.model_name = card.data.model_name or visible(model)
    return card


def _results(judged: JudgedRun) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    manifest, request = judged.run.manifest, judged.run.request
    data = visible(manifest.data.name)
    for number in headlines(judged):
        if number.tone in _NAMES:
            yield EvalResult(
                task_type="image-classification",
                dataset_type=re.sub(r"[^A-Za-z0-9._/-]+", "-", data),
                dataset_name=data,
                metric_type="accuracy",
                metric_name=_NAMES[number.tone],
                metric_value=number.share,
                metric_args={
                    "measured_by": _MEASURED_BY,
                    "attack": visible(request.attack),
                    "norm": request.norm,
                    "eps": request.eps,
                    **_qualities(number, judged),
                },
            )


def _qualities(number: Headline, judged: JudgedRun) -> dict[str, Any]:
    return {
        "interval": [float(end) for end in number.interval or ()],
        "confidence_level": judged.verdict.confidence_level,
        "samples": len(judged.samples),
        "verdict": judged.verdict.verdict,
    }


def _key(result: EvalResult) -> tuple[Any, ...]:
    """What one of our results is about; anyone else's is about itself alone."""
    about = result.metric_args
    if not isinstance(about, dict) or about.get("measured_by") != _MEASURED_BY:
        return (id(result),)
    budget = (about.get("attack"), about.get("norm"), about.get("eps"))
    return (result.dataset_type, result.metric_name, *budget)


def _with_section(text: str, judged: Sequence[JudgedRun]) -> str:
    """The card's text with the section of these runs, in its old place or at the end."""
    lines = [_BEGIN, "## Robustness evaluation", ""]
    for one in judged:
        lines += [*answer_lines(one), ""]
    section = "\n".join([*lines, "Measured by flatguard.", _END])
    if _SECTION.search(text):
        return _SECTION.sub(lambda _: section, text, count=1)
    return f"{text.rstrip()}\n\n{section}\n"
