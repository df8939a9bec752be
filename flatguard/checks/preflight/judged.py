"""Preflight on its own: measured and judged, without an attack and without a run folder."""

from __future__ import annotations

from dataclasses import dataclass

from flatguard.checks import (
    batch_dependence,
    clean_accuracy,
    earlier_calls,
    input_gradient,
    input_writes,
    model_changes,
    output_kind,
)
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import PreflightFacts, clean_table
from flatguard.checks.preflight.gather import CLEAN, measure, single_image_refusal
from flatguard.checks.preflight.repeats import repeatable
from flatguard.execution.context import ModelAndData
from flatguard.request import TOLERANCE
from flatguard.runs.check_evidence import PREFLIGHT

_CHECKS = (
    clean_accuracy, batch_dependence, earlier_calls, input_writes, model_changes, output_kind,
    input_gradient,
)  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """What the model does on the clean images.

    Attributes:
        facts: what was measured.
        findings: one for each question, as in the verdict of a run.
        notes: on the model as it was loaded, such as a mode that was changed.
        nothing_to_judge: why a run would have no verdict; None if nothing stands against one.
    """

    facts: PreflightFacts
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    nothing_to_judge: str | None

    @property
    def exit_code(self) -> int:
        """0: a run can have a verdict; 3: there is no robustness to judge."""
        return 0 if self.nothing_to_judge is None else 3


def preflight(loaded: ModelAndData) -> Preflight:
    """Measure and judge a model on its clean images."""
    facts = measure(loaded)
    evidence = _evidence(loaded, facts)
    findings = [check.CHECK.judge(evidence, TOLERANCE) for check in _CHECKS]
    findings.insert(1, repeatable(facts))
    accuracy, why = findings[0], None
    if accuracy.status == "not-run":
        why = "the model gives finite logits for no image"
    elif accuracy.status != "pass":
        why = accuracy.summary
    alone = loaded.block_size > 1 and loaded.count % loaded.block_size == 1
    notes = loaded.target.notes
    if facts.single_image is not None and alone:
        notes = (*notes, single_image_refusal(loaded, facts.single_image))
    left_out = min(CLEAN, loaded.count) - (0 if facts.clean is None else len(facts.clean.samples))
    if left_out:
        asked = min(CLEAN, loaded.count)
        notes = (*notes, f"no finite logits for {left_out} of {asked} images: not counted above")
    return Preflight(facts, tuple(findings), notes, why)


def _evidence(loaded: ModelAndData, facts: PreflightFacts) -> Evidence:
    """What the checks read: the clean pass in place of a run's samples."""
    return Evidence(
        num_classes=loaded.target.num_classes or 2,
        eps=None,
        norm=None,
        attack="",
        attack_args={},
        samples=clean_table(facts.clean),
        trajectory=(),
        probes={PREFLIGHT: ProbeEvidence(facts.model_dump(mode="json"))},
    )
