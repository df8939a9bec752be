"""What preflight measured, as it is stored in the run folder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.missing_evidence import how_to_run
from flatguard.runs.check_evidence import PREFLIGHT
from flatguard.runs.facts import Number

SOURCE = "Carlini et al. 2019 (a checklist for evaluations)"

DIFFERS = 1e-4
"""Relative: parallel sums differ by 1e-6 from call to call on a GPU."""

BATCH_DIFFERS = 1e-3
"""The same between batches: other kernels for other batch sizes round differently."""

_FAR, _LEVEL = 0.03, 0.001

OutputKind = Literal[
    "logits", "log-probabilities", "probabilities", "sigmoid", "clipped", "one-hot", "constant"
]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(_Facts):
    """Two passes over the same images compared.

    Attributes:
        largest: the largest difference of a logit, relative to the size of the image's logits; None
            where a pass gave logits that are not finite.
        flips: how many decisions differ.
        images: how many images were compared.
    """

    largest: FiniteFloat | None
    flips: Number
    images: Number

    def described(self, where: str) -> str:
        """The size of the difference and the changed decisions, in words."""
        size = "not finite" if self.largest is None else f"up to {self.largest:.2g} of their size"
        return f"differ by {size} {where}, and {self.flips} of {self.images} decisions change"


class CleanPass(_Facts):
    """The model's decisions on some clean images."""

    samples: tuple[Number, ...]
    labels: tuple[Number, ...]
    predictions: tuple[int, ...]
    lowest_pixel: FiniteFloat
    highest_pixel: FiniteFloat


class TriedInput(_Facts):
    """The accuracy with another preprocessing, beside the model's own on the same images.

    Attributes:
        name: of the preprocessing.
        how: what to do to have it.
        correct, own: decisions that are right with it, and without it.
        gained, lost: decisions that it makes right, and wrong.
        images: how many images it was tried on.
    """

    name: str
    how: str
    correct: Number
    own: Number
    gained: Number
    lost: Number
    images: Number


class Published(_Facts):
    """The published clean accuracy of a leaderboard's entry, as a share."""

    entry: str
    accuracy: Annotated[float, Field(ge=0, le=1)]

    def is_above(self, correct: int, images: int) -> bool:
        """Whether a measured accuracy is below this one: by 3 points, and by an exact test."""
        from scipy.stats import binom

        far = self.accuracy - correct / images >= _FAR
        return bool(far and binom.cdf(correct, images, self.accuracy) < _LEVEL)


class InputGradient(_Facts):
    """The gradient of the decision's margin in the input; counts of images.

    `other_logits` compares the logits with those without gradient, where they differ.
    """

    images: Number
    absent: bool
    zero: Number
    not_finite: Number
    error: str | None = None
    other_logits: Difference | None = None


class Output(_Facts):
    """What the model returns."""

    kind: OutputKind
    lowest: FiniteFloat
    highest: FiniteFloat
    detail: str = ""


class Precision(_Facts):
    """A model in another precision than float32 beside its float32 copy, on the same images.

    Attributes:
        name: of the model's own precision: `bfloat16`.
        largest: the largest difference of a logit, in logits; None where it was not measured, or
            logits were not finite.
        difference: the same relative to the size of the logits, and the decisions; None where it
            was not measured.
        unmeasured: why it was not.
    """

    name: str
    largest: FiniteFloat | None = None
    difference: Difference | None = None
    unmeasured: str | None = None

    @property
    def text(self) -> str:
        """The precision, and the difference to float32 in words."""
        if self.difference is None:
            return (
                f"computed in {self.name}; the difference to float32 is unmeasured: "
                f"{self.unmeasured}"
            )
        images, flips = self.difference.images, self.difference.flips
        size = "not finite" if self.largest is None else f"up to {self.largest:.2g}"
        return (
            f"computed in {self.name}: a float32 copy decides alike on {images - flips} of "
            f"{images} images, and logits differ by {size}"
        )


class PreflightFacts(_Facts):
    """Everything that preflight measured. A part that could not be measured is None.

    Attributes:
        forwards, backwards: images that went forward and backward.
        on_a_copy: whether a copy of the model was called, so that the model is as it was.
        clean: decisions on some clean images.
        published: of the leaderboard, where the model is an entry and these are its images.
        tried: other kinds of preprocessing; empty where the clean accuracy gave no reason to try.
        repeated: the same images again, with the same random numbers.
        other_seed: the same images again, with other random numbers.
        own_generator: whether repeated passes differ as draws of a generator of the model's own.
        batch_draws_apart: for such a model, whether its draws beside other images lie apart from
            those in the same batch; None where they were not compared.
        state_draws_apart: the same for a model that was called before and a new copy.
        other_neighbours: the same images beside other images.
        smaller_batch: the same images in a smaller batch; None for a randomised model.
        single_image: why a single image fails; None if it does not.
        after_calls: the same images, asked of a model that answered before and of a new copy.
        near_image: the same for images near to those that it answered.
        trained_parts: stages that compute as in training: dropout, batch normalisation.
        writes_input: whether a call writes into its input.
        mode_changes: modules that calls put into training mode.
        value_changes: parameters and buffers whose values are others after calls.
        gradient: of the input.
        output: what comes out.
        precision: of a model that computes in another one than float32; None for float32.
        failed: parts that could not be measured, each with the reason.
    """

    forwards: Number
    backwards: Number
    on_a_copy: bool
    clean: CleanPass | None = None
    published: Published | None = None
    tried: tuple[TriedInput, ...] = ()
    repeated: Difference | None = None
    other_seed: Difference | None = None
    own_generator: bool = False
    batch_draws_apart: bool | None = None
    state_draws_apart: bool | None = None
    other_neighbours: Difference | None = None
    smaller_batch: Difference | None = None
    single_image: str | None = None
    after_calls: Difference | None = None
    near_image: Difference | None = None
    trained_parts: tuple[str, ...] = ()
    writes_input: bool | None = None
    mode_changes: tuple[str, ...] = ()
    value_changes: tuple[str, ...] = ()
    gradient: InputGradient | None = None
    output: Output | None = None
    precision: Precision | None = None
    failed: dict[str, str] = {}

    @property
    def depends_on_its_batch(self) -> bool:
        """Whether an image's logits depend on the batch that it is in."""
        parts = (self.other_neighbours, self.smaller_batch)
        return bool(self.batch_draws_apart) or any(is_batch_effect(part) for part in parts)


def differs(part: Difference | None) -> bool:
    """Whether two passes over the same images differ beyond rounding."""
    return part is not None and (part.largest is None or part.largest > DIFFERS)


def is_batch_effect(part: Difference | None) -> bool:
    """Whether passes in different batches differ beyond rounding."""
    return part is not None and (part.largest is None or part.largest > BATCH_DIFFERS)


def clean_table(clean: CleanPass | None) -> pd.DataFrame:
    """The clean pass as a run's samples are; no row without one."""
    labels = clean.labels if clean is not None else ()
    predictions = clean.predictions if clean is not None else ()
    right = np.array(labels, int) == np.array(predictions, int)
    columns = {
        "sample": clean.samples if clean is not None else (),
        "label": labels,
        "clean_prediction": predictions,
        "clean_correct": right,
        "failed": ~right & right,
        "robust": right,
    }
    return pd.DataFrame(columns)


def facts_of(evidence: Evidence) -> PreflightFacts | None:
    """What preflight measured; None where it did not run or its evidence is damaged."""
    probe = evidence.probe(PREFLIGHT)
    if probe is None or not probe.ran:
        return None
    known = {name: value for name, value in probe.facts.items() if name in _NAMES}
    try:
        return PreflightFacts.model_validate(known)
    except ValidationError:
        return None


_NAMES = set(PreflightFacts.model_fields)


def stored(facts: PreflightFacts) -> dict[str, Any]:
    """The facts as the run folder holds them; the precision only where it is not float32."""
    kept = {"precision"} if facts.precision is None else set()
    return facts.model_dump(mode="json", exclude=kept)


def not_measured(check: str, evidence: Evidence, part: str) -> Finding:
    """The finding of a check whose part of preflight is missing, with the reason."""
    facts = facts_of(evidence)
    if facts is None:
        why = f"the model was not tried before the attack: {evidence.why_not(PREFLIGHT)}"
        return not_run(check, SOURCE, why, how_to_run(evidence, PREFLIGHT, searches=False))
    why = f"it could not be measured before the attack: {facts.failed.get(part, 'no reason known')}"
    return not_run(check, SOURCE, why, None)
