"""One attempt to attack rows of a block: measure clean, attack, measure the result again.

An attempt writes nothing to the run folder; `block.py` commits its result or tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.attacks.monitor import Order
from flatguard.data.dataset import Batch
from flatguard.environment.randomness import seeded
from flatguard.errors import ModelError, memory_errors
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.decision import margin
from flatguard.geometry.distance import distance, within
from flatguard.recording.layers import LayerTable, measure_points, points_of
from flatguard.recording.measure import measured_columns
from flatguard.recording.mistakes import KeptMistakes
from flatguard.recording.recorder import Recorder
from flatguard.recording.trajectory import NARROW
from flatguard.recording.waypoints import Waypoints
from flatguard.request import derive_seed
from flatguard.runs.facts import BlockFacts, BlockPlan
from flatguard.targets import Target
from flatguard.targets.first_call import model_errors
from flatguard.targets.head import HeadSearch


@dataclass(frozen=True)
class AttemptResult:
    """What an attempt returns when nothing raised."""

    samples: pd.DataFrame
    adversarial: Tensor
    facts: BlockFacts
    seconds: dict[str, float]
    layers: pd.DataFrame | None
    mistakes: KeptMistakes | None


@dataclass
class AttackAttempt:
    """The whole attack on some rows of a block."""

    context: EvaluationContext
    plan: BlockPlan
    batch: Batch
    rows: np.ndarray
    progress: ProgressReporter
    compute_budget: ComputeBudget
    recorder: Recorder | None = field(default=None, init=False)

    @property
    def part(self) -> Batch:
        """The batch of these rows only."""
        if len(self.rows) == len(self.batch):
            return self.batch
        index = torch.from_numpy(self.rows)
        return Batch(self.batch.images[index].contiguous(), self.batch.labels[index])

    def of(self, rows: np.ndarray) -> AttackAttempt:
        """The same attempt on other rows."""
        return replace(self, rows=rows)

    def run(self, sink: Callable[[pd.DataFrame], None]) -> AttemptResult:
        """Measure clean, attack, measure again; rows of the trajectory go to `sink` as they come.

        Raises:
            ModelError, AttackError: from the model and from the attack.
            OutOfMemory: the memory is too small for so many rows.
        """
        with memory_errors(f"{self.context.target.name} on {len(self.rows)} images at once"):
            return self._run(sink)

    def _run(self, sink: Callable[[pd.DataFrame], None]) -> AttemptResult:
        context, plan, part = self.context, self.plan, self.part
        numbers = self.rows + plan.start
        began = time.perf_counter()
        clean = self._clean_measurements(part)
        watched = int((numbers < context.request.layer_samples).sum()) if context.layers else 0
        way = Waypoints(watched)
        self.recorder = recorder = self._attack_recorder(
            part, way, lambda rows: sink(_numbered(rows, numbers))
        )
        images, labels = part.images.to(context.device), part.labels.to(context.device)
        attacking = time.perf_counter()
        with recorder:
            perturbed = context.attack.perturb(
                context.searched.model, images, labels, plan.seed, recorder
            )
        recorder.flush()
        attacked = time.perf_counter()
        adversarial = perturbed.images.cpu()
        after = _measured(
            context, part, adversarial, derive_seed(context.request.seed, plan.index, "check")
        )
        samples = _samples(context, part, numbers, adversarial, clean, after)
        if context.request.engine:
            samples["search_prediction"] = self._search_predictions(adversarial)
        checked = time.perf_counter()
        seconds = {
            "clean": attacking - began, "attack": attacked - attacking, "check": checked - attacked,
        }  # fmt: skip
        table = None
        if len(way):
            table = self._layer_table(Batch(images, labels), perturbed.images, way, numbers)
            seconds["layers"] = time.perf_counter() - checked
        facts = BlockFacts(plan=plan, warnings=perturbed.warnings, **recorder_counts(recorder))
        kept = self._kept_mistakes(recorder, samples)
        return AttemptResult(samples, adversarial, facts, seconds, table, kept)

    def empty(self) -> AttemptResult:
        """The result without any row, where every row failed before."""
        recorder = _recorder(self.context.target, self.context, self.batch)
        no_rows = recorder.measured()[_measured_columns(self.context)]
        part = Batch(self.batch.images[:0], self.batch.labels[:0])
        samples = _samples(self.context, part, self.rows, part.images, no_rows, no_rows)
        if self.context.request.engine:
            samples["search_prediction"] = np.zeros(0, np.int64)
        facts = BlockFacts(
            plan=self.plan, calls=0, sample_forwards=0, sample_backwards=0, rows_unassigned=0,
            first_nonfinite=None, segments=(), warnings=(),
        )  # fmt: skip
        seconds = {"clean": 0.0, "attack": 0.0, "check": 0.0}
        return AttemptResult(samples, part.images, facts, seconds, None, None)

    def _kept_mistakes(self, recorder: Recorder, samples: pd.DataFrame) -> KeptMistakes | None:
        """What the attack passed through on samples that survived it."""
        robust = torch.tensor(samples["robust"].to_numpy(bool))
        found = recorder.mistakes.of(robust) if recorder.mistakes is not None else None
        if found is None:
            return None
        if self.context.request.engine:
            found = self._that_fool_the_model(found)
        if found is None:
            return None
        numbers = torch.from_numpy(self.rows + self.plan.start)
        return replace(found, sample=numbers[found.sample])

    def _that_fool_the_model(self, found: KeptMistakes) -> KeptMistakes | None:
        """Which of the mistakes of the search's twin the model makes, too, with its own margins."""
        with self._fresh_pass("check"):
            logits = self.context.target.model(found.images.to(self.context.device)).cpu()
        margins = margin(logits, self.part.labels[found.sample])
        wrong = margins < 0
        if not wrong.any():
            return None
        return KeptMistakes(found.sample[wrong], found.images[wrong], margins[wrong])

    def _search_predictions(self, adversarial: Tensor) -> np.ndarray:
        """What the search's twin makes of the returned images."""
        with self._fresh_pass("check"):
            logits = self.context.searched.model(adversarial.to(self.context.device))
        predictions: np.ndarray = logits.argmax(dim=1).cpu().numpy()
        return predictions

    @contextmanager
    def _fresh_pass(self, part: str) -> Iterator[None]:
        """A pass with the seed of one that measures, and without gradients."""
        context = self.context
        with (
            torch.no_grad(),
            seeded(derive_seed(context.request.seed, self.plan.index, part), context.device),
            model_errors(context.target.name, f"on {len(self.rows)} images at once"),
        ):
            yield

    def _clean_measurements(self, part: Batch) -> pd.DataFrame:
        context = self.context
        seed = derive_seed(context.request.seed, self.plan.index, "clean")
        clean = _measured(context, part, part.images, seed)
        bad = clean["loss"].isna().to_numpy()
        if bad.any():
            first = self.plan.start + int(self.rows[bad.argmax()])
            raise ModelError(
                f"{context.target.name} gives NaN or infinite logits for {int(bad.sum())} of the "
                f"clean images, the first of them sample {first}"
            )
        return clean

    def _attack_recorder(
        self, part: Batch, way: Waypoints, sink: Callable[[pd.DataFrame], None]
    ) -> Recorder:
        attack = self.context.attack
        return _recorder(
            self.context.searched,
            self.context,
            part,
            budget=attack.budget,
            order=attack.info.order,
            gradients=self.context.request.gradients,
            waypoints=way if len(way) else None,
            on_call=partial(_called, self.progress, self.compute_budget),
            sink=sink,
        )

    def _layer_table(
        self, batch: Batch, adversarial: Tensor, way: Waypoints, numbers: np.ndarray
    ) -> pd.DataFrame:
        """Sharpness of deeper layers along the attack; the recorder's hooks are removed by now."""
        context, head = self.context, self.context.target.head
        assert head is not None, "checked before the attack"
        seed, table = derive_seed(self.plan.seed, self.plan.index, "layers"), LayerTable()
        self.progress.stage("deeper layers", len(way))
        for index in range(len(way)):
            points = points_of(
                int(numbers[index]), batch.images[index], batch.labels[index], adversarial[index],
                way, index,
            )  # fmt: skip
            measure_points(
                context.target.model, head, context.layers, points, seed + 100 * index, table
            )
            self.progress.advanced(1)
        return table.frame()


def _called(progress: ProgressReporter, compute_budget: ComputeBudget, rows: int) -> None:
    """Count a model call and report it.

    A method would make the attempt and its recorder refer to each other, which keeps the images in
    memory until the garbage collector runs.
    """
    try:
        compute_budget.spend(rows)
    finally:
        progress.called(rows)  # may raise KeyboardInterrupt; the rows are counted before that


def recorder_counts(recorder: Recorder) -> dict[str, Any]:
    """The recorder's counts, as fields of `BlockFacts` and `BlockFailure`."""
    return {
        "calls": recorder.calls,
        "sample_forwards": recorder.forwards,
        "sample_backwards": recorder.backwards,
        "rows_unassigned": recorder.rows_unassigned,
        "first_nonfinite": recorder.first_nonfinite,
        "segments": tuple(recorder.segments),
    }


def _measured(context: EvaluationContext, batch: Batch, images: Tensor, seed: int) -> pd.DataFrame:
    """One fresh forward pass over `images`, measured against the clean batch."""
    recorder = _recorder(context.target, context, batch, order=Order(keeps=True))
    where = "on a single image" if len(images) == 1 else f"on {len(images)} images at once"
    with (
        recorder,
        torch.no_grad(),
        seeded(seed, context.device),
        model_errors(context.target.name, where),
    ):
        context.target.model(images.to(context.device))
    found: pd.DataFrame = recorder.measured()[_measured_columns(context)]
    return found


def _measured_columns(context: EvaluationContext) -> list[str]:
    return measured_columns(context.target.head is not None, context.request.losses)


def _recorder(target: Target, context: EvaluationContext, batch: Batch, **how: Any) -> Recorder:
    images, labels = batch.images.to(context.device), batch.labels.to(context.device)
    known = HeadSearch(target.head, target.head_reason)
    losses = context.request.losses
    return Recorder(target.model, images, labels, head=known, losses=losses, **how)


def _numbered(rows: pd.DataFrame, numbers: np.ndarray) -> pd.DataFrame:
    """Replace a row's position in the batch by its number in the data set."""
    known = rows["sample"].notna().to_numpy()
    sample = np.zeros(len(rows), dtype=np.int32)
    sample[known] = numbers[rows.loc[known, "sample"].to_numpy(dtype="int64")]
    numbered: pd.DataFrame = rows.assign(sample=pd.arrays.IntegerArray(sample, ~known))
    return numbered


def _samples(
    context: EvaluationContext,
    batch: Batch,
    numbers: np.ndarray,
    adversarial: Tensor,
    clean: pd.DataFrame,
    after: pd.DataFrame,
) -> pd.DataFrame:
    """A row per sample. Robustness is decided here; the attack's own result is not used."""
    table = pd.DataFrame({"sample": numbers, "label": batch.labels.numpy()})
    for name in after.columns:
        if name not in ("linf", "l2"):
            table[f"clean_{name}"] = clean[name].array
            table[f"adv_{name}"] = after[name].array
    table["linf"], table["l2"] = after["linf"], after["l2"]
    inside = within(adversarial, batch.images, context.attack.budget)
    table["distance"] = distance(
        adversarial, batch.images, context.attack.budget.norm
    ).to(torch.float64).numpy()  # fmt: skip
    table["admissible"] = inside.numpy()
    table["failed"] = False
    table["clean_correct"] = table["clean_prediction"] == table["label"]
    # Without a finite margin the prediction is arbitrary, so it does not count as correct.
    still_right = (table["adv_prediction"] == table["label"]) & table["adv_margin"].notna()
    table["robust"] = table["clean_correct"] & (still_right | ~table["admissible"])
    kept = {name: "float32" for name in table.columns if name.split("_", 1)[-1] in NARROW}
    narrow: pd.DataFrame = table.astype(kept)
    return narrow
