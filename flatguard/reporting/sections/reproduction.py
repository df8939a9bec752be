"""Everything that is needed to reproduce a run, and the limits of the method."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flatguard.environment.system import quoted
from flatguard.geometry.measures import KAPPA, LOGIT_SHARPNESS, SharpnessMeasure
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Section, SectionContent
from flatguard.reporting.templating import render
from flatguard.reporting.text import counted

_LIMITS = (
    "The corrected accuracy is an upper bound from the attacks that were run. It is not a "
    "certificate: a stronger attack may find more adversarial examples.",
    "An interval describes how much the number varies with other samples from the same "
    "distribution. It says nothing about attacks that were not run.",
    "{sharpness}",
    "A threshold on {name} detects examples that were not made to evade it. It is not a defence: "
    "an attacker who knows the threshold can keep {name} high.",
    "A flat loss around an example does not make the prediction correct: adversarial examples also "
    "lie in flat regions (the uncanny valley).",
    "What was not measured is left out or shown as not run. It counts neither as zero nor as "
    "passed.",
)


@dataclass(frozen=True)
class _Item:
    """A name and its value; code is shown in a fixed-width font."""

    name: str
    value: str
    is_code: bool = False


_SHARPNESS = {
    KAPPA: (
        "Relative sharpness κ is closely related to confidence: it adds the norm of the features "
        "and of the last layer's weights. It does not depend on deeper layers unless they are "
        "listed."
    ),
    LOGIT_SHARPNESS: (
        "Logit sharpness is a function of the logits alone: it measures confidence, and not the "
        "sharpness of any layer."
    ),
}


def _limits(measure: SharpnessMeasure) -> tuple[str, ...]:
    return tuple(text.format(sharpness=_SHARPNESS[measure], name=measure.name) for text in _LIMITS)


def _build(judged: JudgedRun) -> SectionContent:
    manifest, limits = judged.run.manifest.model_dump(mode="json"), _limits(judged.sharpness)
    html = render(
        "reproduction.html.j2",
        items=_items(judged),
        limits=limits,
        request=_listed(manifest["request"]),
        arguments=_listed(manifest["attack_args"]),
        versions=_listed(manifest["versions"]),
        blocks=judged.run.manifest.blocks,
    )
    return SectionContent(html=html, data={"manifest": manifest, "limits": list(limits)})


def _items(judged: JudgedRun) -> list[_Item]:
    manifest, summary = judged.run.manifest, judged.summary
    target, device = manifest.target, ", ".join(f"{k} {v}" for k, v in manifest.device.items())
    command = quoted(*manifest.command) if manifest.command else "called from Python"
    unassigned = "none: every row of every model call was assigned to its sample"
    if summary["rows_unassigned"]:
        rows = counted(summary["rows_unassigned"], "row")
        unassigned = f"{rows} could not be assigned to a sample; the figures leave them out"
    return [
        _Item("command", command, is_code=True),
        _Item("created", manifest.created),
        _Item("model", f"{target.name} ({target.source})"),
        _Item("weights, SHA-256", target.weights_sha256, is_code=True),
        _Item("final linear layer", target.head or f"not found: {target.head_reason}"),
        _Item("data", f"{manifest.data.name}, {len(judged.samples):,} of {manifest.data.size:,}"),
        _Item("data, SHA-256", manifest.data.sha256, is_code=True),
        _Item("adversarial images, SHA-256", summary["adversarial_sha256"], is_code=True),
        _Item("seed", str(manifest.request.seed)),
        _Item("device", device),
        _Item(
            "time",
            f"{summary['seconds']:.1f} s in total, {summary['attack_seconds']:.1f} s for the "
            "attack",
        ),
        _Item(
            "cost",
            f"{summary['sample_forwards']:,} forward and {summary['sample_backwards']:,} backward "
            f"passes of one sample for the attack, {summary['check_forwards']:,} forward passes "
            "for the checks",
        ),
        _Item("rows unassigned", unassigned),
        _Item(
            "outside the budget",
            f"{counted(summary['outside_budget'], 'example')}, not counted as adversarial",
        ),
        *(_Item("note", note) for note in target.notes),
        *(_Item("warning", warning) for warning in summary["warnings"]),
    ]


def _listed(values: dict[str, Any]) -> list[_Item]:
    """Names and values, without those that are not set."""
    return [
        _Item(name, value if isinstance(value, str) else json.dumps(value), is_code=True)
        for name, value in values.items()
        if value is not None
    ]


REPRODUCTION = Section("to-repeat-it", "Reproduction", _build)
