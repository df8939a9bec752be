"""Figures 2 and 5: robust overfitting over the epochs of a training run, and flatness with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from flatguard.studies.claim import Claim
from flatguard.studies.stutz.checkpoint import Checkpoint
from flatguard.studies.stutz.correlation import Mean, association, mean_over_runs
from flatguard.studies.stutz.from_runs import correlated, positive
from flatguard.studies.stutz.table import by_run, chosen, frame

SINCE = "From the epoch that early stopping would keep, by held-out samples, to the last one."


def figure_2(checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """What happens between the epoch that held-out samples choose and the last one."""

    def rise(value: Callable[[Checkpoint], float | None]) -> Mean | None:
        return _mean_rise(checkpoints, value)

    return [
        positive(
            "rloss-rises",
            "Test robust loss rises again late in training.",
            "to around 4",
            rise(lambda c: c.rloss),
            SINCE,
        ),
        positive(
            "correct-rises",
            "It rises on correctly classified examples too.",
            "rises, no number",
            rise(lambda c: c.rloss_correct),
            SINCE,
        ),
        positive(
            "incorrect-rises",
            "It rises on incorrectly classified examples.",
            "extremely high, no number",
            rise(lambda c: c.rloss_incorrect),
            SINCE,
        ),
        positive(
            "training-falls",
            "Training robust loss goes on falling.",
            "falls, no number",
            rise(lambda c: None if c.training_rloss is None else -c.training_rloss),
            f"By how much it falls. {SINCE}",
        ),
        positive(
            "rerr-rises",
            "Robust error rises too, less so.",
            "by 8.2 points (Table 1, AT)",
            rise(lambda c: c.rerr),
            SINCE,
        ),
    ]


def figure_5(checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """Robust loss against flatness over the epochs."""
    late = [
        checkpoint
        for epochs in by_run(checkpoints).values()
        if (place := chosen(epochs)) is not None
        for checkpoint in epochs[place:]
    ]
    return [
        correlated(
            "flatness-rloss-all",
            "Robust loss and flatness worsen together over the epochs.",
            "a clear correlation, no number",
            association(frame(checkpoints), "flatness", "rloss"),
            "All epochs, the early ones among them: a network that knows little yet is flat and "
            "has a high loss.",
        ),
        correlated(
            "flatness-rloss-late",
            "They do so during robust overfitting.",
            "a clear correlation, no number",
            association(frame(late), "flatness", "rloss"),
            SINCE,
        ),
        positive(
            "flatness-rises",
            "Early stopping finds flatter minima: the measure rises from there on.",
            "rises significantly, no number",
            _mean_rise(checkpoints, lambda c: c.flatness),
            SINCE,
        ),
    ]


def _mean_rise(
    checkpoints: Sequence[Checkpoint], value: Callable[[Checkpoint], float | None]
) -> Mean | None:
    """From the chosen to the last epoch, over all runs; 0 where the last is the chosen one."""
    rises = []
    for epochs in by_run(checkpoints).values():
        place = chosen(epochs)
        if place is not None:
            before, after = value(epochs[place]), value(epochs[-1])
            rises.append(math.nan if before is None or after is None else after - before)
    return mean_over_runs(rises)
