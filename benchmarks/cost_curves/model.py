r"""The cost model: processor time and peak memory of a run as sums of what they grow with.

$$ T = r\,s + \theta_0 + \theta_1 b + \theta_2 c + \theta_3 r + \theta_4 r k + \theta_5 r p
   + \theta_6 n p + \theta_7 (w - 1) $$

with $r$ rows that go forward, $s$ seconds of a bare pass forward and backward of one image, $b$
blocks, $c$ model calls, $k$ classes, $p$ values of an image, $n$ images and $w$ workers. The
coefficients are not negative and minimise the squared relative errors. Where $s$ was not measured,
it is $\sigma_0 / m + \sigma_1 F + \sigma_2 A$, with $m$ images a batch, $F$ multiply-adds and $A$
activations of an image. Memory is likewise $\mu_0 + \mu_1 m A + \mu_2 m p + \mu_3 m k S
+ \mu_4 P + \mu_5 n p$, with $S$ steps and $P$ parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from benchmarks.cost_curves.measure import Measured

Features = Callable[[Measured], list[float]]

TIME = (
    "a run", "a block", "a model call", "a row", "a row and class", "a row and pixel value",
    "an image and pixel value", "a further worker",
)  # fmt: skip

MEMORY = (
    "the process", "an activation in the batch", "a pixel value in the batch",
    "a class, step and image of the batch", "a parameter", "a pixel value of all images",
)  # fmt: skip


@dataclass(frozen=True)
class CostModel:
    """Fitted coefficients, in the order of `TIME` and `MEMORY`; times in seconds, sizes in bytes.

    Attributes:
        time: of a run beside the bare passes.
        bare: of one image in a bare pass: a call, a multiply-add, an activation.
        memory: of the peak.
    """

    time: tuple[float, ...]
    bare: tuple[float, ...]
    memory: tuple[float, ...]

    def pass_seconds(self, run: Measured) -> float:
        """Of a bare pass forward and backward of one image, from the network's size."""
        return _sum(self.bare, _bare_features(run))

    def seconds(self, run: Measured) -> float:
        """Of the whole run, from its own `pass_seconds`."""
        return run.trial.rows * run.pass_seconds + _sum(self.time, _time_features(run))

    def seconds_from_size(self, run: Measured) -> float:
        """Of the whole run, from the network's size alone."""
        return self.seconds(replace(run, pass_seconds=self.pass_seconds(run)))

    def peak_bytes(self, run: Measured) -> float:
        """Of the process."""
        return _sum(self.memory, _memory_features(run))


def fitted(runs: Sequence[Measured]) -> CostModel:
    """The model of these runs."""
    alone = [run for run in runs if run.trial.workers == 1]
    beside = [run.seconds - run.trial.rows * run.pass_seconds for run in runs]
    return CostModel(
        time=_fit(runs, _time_features, beside, [run.seconds for run in runs]),
        bare=_fit(alone, _bare_features, *2 * [[run.pass_seconds for run in alone]]),
        memory=_fit(alone, _memory_features, *2 * [[float(run.peak_bytes) for run in alone]]),
    )


def _fit(
    runs: Sequence[Measured], features: Features, values: Sequence[float], sizes: Sequence[float]
) -> tuple[float, ...]:
    """Coefficients, not negative, with the least sum of squared errors relative to the sizes."""
    weights = 1.0 / np.array(sizes)
    table = np.array([features(run) for run in runs]) * weights[:, None]
    scale = np.maximum(table.max(axis=0), 1e-300)
    found, _ = nnls(table / scale, np.array(values) * weights)
    return tuple(float(value) for value in found / scale)


def _time_features(run: Measured) -> list[float]:
    trial = run.trial
    rows = float(trial.rows)
    calls = trial.blocks * (trial.steps + 2)
    return [
        1.0, trial.blocks, calls, rows, rows * trial.classes, rows * trial.pixels,
        float(trial.examples * trial.pixels), trial.workers - 1.0,
    ]  # fmt: skip


def _bare_features(run: Measured) -> list[float]:
    return [1.0 / run.trial.batch, float(run.multiplications), float(run.activations)]


def _memory_features(run: Measured) -> list[float]:
    trial = run.trial
    together = float(min(trial.batch, trial.examples))
    return [
        1.0, together * run.activations, together * trial.pixels,
        together * trial.classes * trial.steps, float(run.parameters),
        float(trial.examples * trial.pixels),
    ]  # fmt: skip


def _sum(coefficients: Sequence[float], features: Sequence[float]) -> float:
    return float(np.dot(coefficients, features))
