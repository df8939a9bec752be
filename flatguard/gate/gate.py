"""The gate: evaluates what a config names, and holds the run to the config's thresholds.

A run that is in the cache is not attacked again; it is judged again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from flatguard.checks.verdict import Verdict, verdict_of
from flatguard.detection.detector_file import SavedDetector
from flatguard.errors import UsageError
from flatguard.evaluation import audit, evaluate, resolve
from flatguard.execution.origin import caller_state_kept
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.gate.cache import RunCache
from flatguard.gate.config import Config, Thresholds
from flatguard.gate.outcome import Outcome, outcomes
from flatguard.runs.run import Run
from flatguard.targets import Target


@dataclass(frozen=True)
class Judged:
    """A run at the gate.

    Attributes:
        run: the run, in the cache.
        verdict: the verdict on its number.
        outcomes: one for each finding and each threshold.
        cached: whether the run was in the cache before.
        why: the reason if a kept run was not used.
    """

    run: Run
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    cached: bool
    why: str | None = None

    @property
    def shut(self) -> tuple[Outcome, ...]:
        """The outcomes that shut the gate."""
        return tuple(outcome for outcome in self.outcomes if outcome.shut)


def pass_through(
    config: Config,
    cache: RunCache,
    *,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    command: Sequence[str] = (),
    progress: ProgressReporter | None = None,
) -> Judged:
    """Evaluate what a config names, or take it from the cache, and hold it to its thresholds.

    Args:
        config: what to evaluate, how, and what it must reach.
        cache: where runs are kept.
        model: in place of the config's.
        data: images in [0, 1] and labels, in place of the config's.
        command: the command line, for the manifest.
        progress: receives progress updates.

    Raises:
        FlatguardError: one of its kinds; nothing could be judged.
    """
    with caller_state_kept(model):
        return _passed(config, cache, model, data, command, progress)


def _passed(
    config: Config,
    cache: RunCache,
    model: nn.Module | Target | None,
    data: tuple[Tensor, Tensor] | None,
    command: Sequence[str],
    progress: ProgressReporter | None,
) -> Judged:
    config.check_detector()
    arguments = config.arguments()
    attacked: Any = arguments.pop("model", None) if model is None else model
    arguments.pop("model", None)
    attack = arguments.pop("attack", None)
    if attacked is None or attack is None:
        missing = "model" if attacked is None else "attack"
        raise UsageError(f"no {missing} is named: add a key `{missing}` to the config")
    arguments["data"] = arguments.pop("dataset", None) if data is None else data
    thresholds = config.gate or Thresholds()
    arguments["tolerance"] = thresholds.max_overestimate
    context = resolve(attacked, attack, **arguments)
    config.check_images(context.count)
    if config.detector is not None:
        # Before the cache: it keeps an error for every later request of this run.
        SavedDetector.open(config.detector).check_target(context.target)

    def attack_it(folder: Path) -> Run:
        return evaluate(
            attacked, attack, out=folder, command=command, progress=progress or Silent(),
            **arguments,
        )  # fmt: skip

    fetched = cache.fetch(context, attack_it)
    if fetched.cached:
        verdict = audit(
            fetched.run, tolerance=thresholds.max_overestimate, detector=config.detector,
            log_to=config.log_to,
        )  # fmt: skip
    else:
        verdict = verdict_of(fetched.run)
    found = tuple(outcomes(fetched.run, verdict, thresholds))
    return Judged(fetched.run, verdict, found, fetched.cached, fetched.why)
