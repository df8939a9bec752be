"""Measure what the model does on the clean images, and keep it in the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.checks.context import evenly
from flatguard.checks.preflight import behaviour
from flatguard.checks.preflight.calls import Caller
from flatguard.checks.preflight.chance import against_chance
from flatguard.checks.preflight.facts import (
    CleanPass,
    PreflightFacts,
    clean_table,
    differs,
    is_batch_effect,
    stored,
)
from flatguard.checks.preflight.inputs import try_inputs
from flatguard.checks.preflight.leaderboard import published
from flatguard.checks.preflight.output import output_of
from flatguard.checks.preflight.precision import measure_precision
from flatguard.environment.randomness import preserved
from flatguard.environment.torch_state import own_state
from flatguard.errors import ModelError, one_line
from flatguard.execution.context import EvaluationContext, ModelAndData
from flatguard.execution.progress import ProgressReporter
from flatguard.request import derive_seed
from flatguard.runs.check_evidence import PREFLIGHT, ProbeFacts, add_probe, load_probes
from flatguard.runs.run import Run
from flatguard.targets.initial import copy_of

CLEAN, SHOWN = 200, 32
"""Images that are classified once, and images that are shown again and again."""
_ROOM = 0.9
"""From this clean accuracy on, no other preprocessing can be much better."""
_LOW = 0.5
"""Below this clean accuracy, combinations are tried too."""

_COMPARISONS = ("repeated", "other_seed", "other_neighbours", "smaller_batch")


def preflight_run(context: EvaluationContext, run: Run, progress: ProgressReporter) -> None:
    """Measure preflight for a run that does not hold it yet, and store it.

    Raises:
        ModelError: the model cannot take a batch of one image, and the run has one.
    """
    known = load_probes(run).get(PREFLIGHT)
    if known is not None and known.ran:
        return
    progress.stage("preflight", 1)
    began = time.perf_counter()
    facts = measure(context)
    alone = any(plan.stop - plan.start == 1 for plan in run.manifest.blocks)
    if facts.single_image is not None and alone and context.block_size > 1:
        raise ModelError(single_image_refusal(context, facts.single_image))
    probe = ProbeFacts(
        name=PREFLIGHT,
        checks="none",
        ran=True,
        facts=stored(facts),
        sample_forwards=facts.forwards,
        seed=_seed(context),
    )
    add_probe(run, probe, {}, {}, time.perf_counter() - began)
    progress.advanced(1)


def single_image_refusal(loaded: ModelAndData, why: str) -> str:
    """What to do where the last batch is a single image, and the model takes none."""
    size = next(size for size in range(loaded.block_size, 0, -1) if loaded.count % size != 1)
    fix = "keep the batch dimension: squeeze(-1) or flatten(1) in place of squeeze()"
    other = f", or give --batch-size {size}" if size > 1 else ""
    return (
        f"{loaded.target.name} {why} where the batch is a single image, and the last of these "
        f"{loaded.count} images is alone in its batch of {loaded.block_size}; {fix}{other}"
    )


@own_state()
def measure(loaded: ModelAndData) -> PreflightFacts:
    """What the model does on the clean images. A part that fails is left out, with its reason.

    Raises:
        DataError: a sample is no image, or has a label that the model does not have.
    """
    model, on_a_copy = _copy_of(loaded.target.model)
    caller = Caller(model, loaded.device, _seed(loaded), max(2, loaded.block_size))
    with preserved(loaded.device):
        return _Preflight(loaded, caller, on_a_copy).measure()


def _seed(loaded: ModelAndData) -> int:
    return derive_seed(loaded.request.seed, 0, PREFLIGHT)


def _copy_of(model: nn.Module) -> tuple[nn.Module, bool]:
    """A copy to call, so that the model is as it was; the model itself where it has no copy."""
    try:
        return copy_of(model), True
    except Exception:  # a model may raise anything
        return model, False


@dataclass(frozen=True)
class _Classified:
    """The clean images that the model takes, with its answers.

    `together` is False where some images had to be shown one by one.
    """

    numbers: np.ndarray
    images: Tensor
    labels: Tensor
    logits: Tensor
    together: bool

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def different(self) -> Tensor:
        """The positions of images that differ from each other."""
        first: dict[bytes, int] = {}
        for position, image in enumerate(self.images.numpy()):
            first.setdefault(image.tobytes(), position)
        return torch.tensor(list(first.values()))

    def batch_of(self, rows: Tensor, batch: int) -> behaviour.Answered | None:
        """The first batch, if these rows were classified in it."""
        if not self.together or int(rows.max()) >= batch:
            return None
        return behaviour.Answered(self.images[:batch], self.logits[:batch], rows)


@dataclass
class _Preflight:
    """Measures the parts one after the other."""

    loaded: ModelAndData
    caller: Caller
    on_a_copy: bool
    found: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def measure(self) -> PreflightFacts:
        caller, original = self.caller, self.loaded.target.model
        values = behaviour.values(original)
        if not self.on_a_copy:
            values = {name: value.detach().clone() for name, value in values.items()}
        clean = self._classified(evenly(np.arange(self.loaded.count), CLEAN))
        if len(clean):
            self._behaviour(clean)
            self._answers(clean)
        else:
            self.failed["clean"] = "the model gives finite logits for no image"
        return PreflightFacts(
            forwards=caller.forwards,
            backwards=self.found["gradient"].images if "gradient" in self.found else 0,
            on_a_copy=self.on_a_copy,
            mode_changes=behaviour.in_training(caller.model),
            value_changes=behaviour.changed_values(values, caller.model),
            failed=self.failed,
            **self.found,
        )

    def _classified(self, numbers: np.ndarray) -> _Classified:
        """Classify these samples; those that the model does not take are left out."""
        chosen = self.loaded.dataset.chosen(numbers.tolist())
        images, classes = chosen.images, self.loaded.target.num_classes
        for number, label in zip(numbers.tolist(), chosen.labels.tolist(), strict=True):
            self.loaded.dataset.check_label(label, classes or label + 1, number)
        rows: list[Tensor] = []
        taken: list[int] = []
        one_by_one = False
        for part in torch.arange(len(images)).split(self.caller.batch):
            together = self._logits(images[part])
            if together is not None:
                rows.append(together)
                taken.extend(part.tolist())
                continue
            one_by_one = True
            for one in part.tolist():
                alone = self._logits(images[one : one + 1])
                if alone is not None:
                    rows.append(alone)
                    taken.append(one)
        logits = torch.cat(rows) if rows else torch.zeros(0, 2)
        labels = chosen.labels[taken]
        return _Classified(numbers[taken], images[taken], labels, logits.cpu(), not one_by_one)

    def _logits(self, images: Tensor) -> Tensor | None:
        """Finite logits for every image; None where the model does not give them."""
        try:
            logits = self.caller.logits(images)
        except Exception:  # a model may raise anything; such samples are the attack's to report
            return None
        fits = logits.ndim == 2 and len(logits) == len(images) and logits.isfinite().all()
        return logits if fits else None

    def _behaviour(self, clean: _Classified) -> None:
        """What calls do: on some images that differ, beside others."""
        caller, most = self.caller, min(SHOWN, self.caller.batch)
        images = clean.images[clean.different[: 2 * most]]
        before = clean.batch_of(clean.different[:most], caller.batch)
        shown = images[:most]
        others = torch.cat([images[most:], 1 - shown])[: len(shown)]
        self._add("behaviour", lambda: behaviour.measure_behaviour(caller, shown, others, before))
        classes = clean.logits.shape[1]
        if self.loaded.count > 1:
            self.found["single_image"] = behaviour.single_image_error(caller, shown[:1], classes)
        answered = clean.logits[clean.different[:most]] if self._is_repeatable() else None
        self.found["gradient"] = behaviour.measure_gradient(caller, shown, answered)
        original = self.loaded.initial or self.loaded.target.model
        few = shown[: max(1, len(shown) // 2)]
        if self.on_a_copy and self.found.get("own_generator"):
            self._add("state", lambda: behaviour.measure_random_state(caller, original, few))
        elif self.on_a_copy and not differs(self.found.get("repeated")):
            self._add("state", lambda: behaviour.measure_state(caller, original, few))

    def _is_repeatable(self) -> bool:
        """Whether the model answered images alike so far, in whichever batch and call."""
        compared = [self.found.get(name) for name in _COMPARISONS]
        return compared[0] is not None and not any(is_batch_effect(each) for each in compared)

    def _answers(self, clean: _Classified) -> None:
        """What comes out, how often it is right, and what could make it right more often."""
        predictions = clean.logits.argmax(dim=1)
        found = CleanPass(
            samples=tuple(clean.numbers.tolist()),
            labels=tuple(clean.labels.tolist()),
            predictions=tuple(predictions.tolist()),
            lowest_pixel=float(clean.images.min()),
            highest_pixel=float(clean.images.max()),
        )
        precision = measure_precision(self.caller, clean.images, clean.logits)
        if precision is not None:
            self.found["precision"] = precision
        figure = published(self.loaded)
        self.found |= {
            "output": output_of(clean.logits[clean.different]),
            "clean": found,
            "published": figure,
        }
        correct = int((predictions == clean.labels).sum())
        chance = against_chance(clean_table(found), clean.logits.shape[1])
        by_chance = chance is not None and chance.answer != "beyond"
        low = by_chance or correct < _LOW * len(clean)
        parts = (self.found.get("repeated"), self.found.get("other_seed"))
        random = any(differs(part) for part in parts) and not by_chance
        if correct < _ROOM * len(clean) or (figure and figure.is_above(correct, len(clean))):
            images, labels, own = clean.images, clean.labels, predictions == clean.labels

            def tried() -> dict[str, Any]:
                loaded, caller = self.loaded, self.caller
                return {"tried": try_inputs(loaded, caller, images, labels, own, low, random)}

            self._add("tried", tried)

    def _add(self, part: str, measured: Callable[[], dict[str, Any]]) -> None:
        try:
            self.found |= measured()
        except Exception as error:  # a model may raise anything; the reason is shown
            self.failed[part] = f"{type(error).__name__}: {one_line(error)}"
