"""The report of a run on prompts: sharpness and loss along the steps, suffixes, the verdict.

`report.html` and `report.json` in the run folder, from its evidence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks.prompt_verdict import PromptVerdict, judge_prompts
from flatguard.checks.statistics import median_interval
from flatguard.reporting.prompt_page import prompt_page
from flatguard.runs.json_files import write_text
from flatguard.runs.prompt_facts import StepFacts
from flatguard.runs.prompt_run import PromptRun

PAGE, REPORT = "report.html", "report.json"


class PromptPath(BaseModel):
    """One prompt along the steps of the attack, the suffix before the first step first.

    Attributes:
        loss: the mean of $-\\log p$ over the target's tokens, in nats.
        log_kappa: log κ of that loss.
        confidence: the mean over the tokens of the largest probability.
        claimed, survives: at each step; see `AcceptedSuffix`.
        suffixes: the accepted ones, as text.
        peak: the step at which κ is largest; `valley`: at which it is smallest from there on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    target: str
    loss: tuple[float, ...]
    log_kappa: tuple[float, ...]
    confidence: tuple[float, ...]
    claimed: tuple[bool, ...]
    survives: tuple[bool, ...]
    suffixes: tuple[str, ...]
    peak: int
    valley: int


class MedianPath(BaseModel):
    """The median over prompts of one number at each step, with its exact 95% interval.

    Attributes:
        prompts: how many have all these steps.
        interval: None below six prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int
    median: tuple[float, ...]
    interval: tuple[tuple[float, float], ...] | None


class PromptReport(BaseModel):
    """All of a run on prompts; what `--json` prints.

    Attributes:
        steps: accepted suffixes that each prompt gets.
        forwards: sequences that attack and measurement sent forward.
        paths: of the prompts that have begun.
        median_log_kappa, median_loss: over the prompts that have all steps; None if none has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    source: str
    weights_sha256: str
    attack: str
    steps: int
    seed: int
    forwards: int
    verdict: PromptVerdict
    paths: tuple[PromptPath, ...]
    median_log_kappa: MedianPath | None
    median_loss: MedianPath | None


def write_prompt_report(run: PromptRun) -> PromptReport:
    """Judge a run on prompts, and write its `report.html` and `report.json`."""
    report = prompt_report(run)
    write_text(run.path / PAGE, prompt_page(report))
    write_text(run.path / REPORT, report.model_dump_json(indent=1))
    return report


def prompt_report(run: PromptRun) -> PromptReport:
    """Judge a run on prompts, and collect its numbers."""
    request, begun = run.request, [n for n, steps in enumerate(run.steps) if steps]
    paths = tuple(_path(run, number) for number in begun)
    finished = [path for path in paths if len(path.loss) == request.steps + 1]
    return PromptReport(
        model=run.manifest.model.name,
        source=run.manifest.model.source,
        weights_sha256=run.manifest.model.weights_sha256,
        attack=request.attack,
        steps=request.steps,
        seed=request.seed,
        forwards=sum(one.forwards for steps in run.steps for one in steps),
        verdict=judge_prompts(run),
        paths=paths,
        median_log_kappa=_median([path.log_kappa for path in finished]),
        median_loss=_median([path.loss for path in finished]),
    )


def _path(run: PromptRun, number: int) -> PromptPath:
    steps: Sequence[StepFacts] = run.steps[number]
    taken = [one.accepted for one in steps]
    log_kappa = tuple(one.log_mean_kappa for one in taken)
    peak = max(range(len(taken)), key=log_kappa.__getitem__)
    return PromptPath(
        prompt=run.request.prompts[number].prompt,
        target=run.request.prompts[number].target,
        loss=tuple(one.loss for one in taken),
        log_kappa=log_kappa,
        confidence=tuple(sum(one.confidences) / len(one.confidences) for one in taken),
        claimed=tuple(one.claimed for one in taken),
        survives=tuple(one.survives for one in taken),
        suffixes=tuple(one.text for one in taken),
        peak=peak,
        valley=min(range(peak, len(taken)), key=log_kappa.__getitem__),
    )


def _median(paths: Sequence[Sequence[float]]) -> MedianPath | None:
    if not paths:
        return None
    columns = list(zip(*paths, strict=True))
    around = [found for column in columns if (found := median_interval(column)) is not None]
    return MedianPath(
        prompts=len(paths),
        median=tuple(median(column) for column in columns),
        interval=tuple(around) if len(around) == len(columns) else None,
    )
