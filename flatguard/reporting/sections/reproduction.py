"""Everything that is needed to repeat a run, and what the method cannot say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flatguard.environment.system import quoted
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, Section
from flatguard.reporting.templating import render
from flatguard.reporting.text import counted
from flatguard.runs.check_evidence import load_probes

LIMITS = (
    "The corrected accuracy is an upper bound from the attacks that were run. It is no "
    "certificate: a stronger attack may find more.",
    "An interval says how much the number would move with other samples of the same kind. It says "
    "nothing about attacks that were not tried.",
    "Relative sharpness κ is close to confidence: it adds the features' norm and the last "
    "layer's weights to it, and sees no deeper layer unless deeper layers are listed.",
    "A threshold on κ is a diagnostic of examples that were not made against it. It is no "
    "defence: an attacker who knows it can keep κ high.",
    "A flat loss around an example does not make it correct: adversarial examples lie in flat "
    "regions too (the uncanny valley).",
    "What was not measured is left out or called not run. It counts neither as zero nor as passed.",
)


@dataclass(frozen=True)
class Item:
    """A fact and its name; code is shown as it was typed."""

    name: str
    value: str
    is_code: bool = False


def _draw(judged: JudgedRun) -> Drawn:
    items = _items(judged)
    manifest = json.loads(judged.run.manifest.model_dump_json())
    html = render(
        "reproduction.html.j2",
        items=items,
        limits=LIMITS,
        request=_listed(manifest["request"]),
        arguments=_listed(manifest["attack_args"]),
        versions=_listed(manifest["versions"]),
        blocks=judged.run.manifest.blocks,
    )
    return Drawn(html=html, data={"manifest": manifest, "limits": list(LIMITS)})


def _items(judged: JudgedRun) -> list[Item]:
    manifest, summary = judged.run.manifest, judged.summary
    target, device = manifest.target, ", ".join(f"{k} {v}" for k, v in manifest.device.items())
    probes = sum(facts.sample_forwards for facts in load_probes(judged.run).values())
    command = quoted(*manifest.command) if manifest.command else "called from Python"
    return [
        Item("command", command, is_code=True),
        Item("created", manifest.created),
        Item("model", f"{target.name} ({target.source})"),
        Item("weights, SHA-256", target.weights_sha256, is_code=True),
        Item("final linear layer", target.head or f"not found: {target.head_reason}"),
        Item("data", f"{manifest.data.name}, {len(judged.samples):,} of {manifest.data.size:,}"),
        Item("data, SHA-256", manifest.data.sha256, is_code=True),
        Item("adversarial images, SHA-256", summary["adversarial_sha256"], is_code=True),
        Item("seed", str(manifest.request.seed)),
        Item("device", device),
        Item("time", f"{summary['seconds']:.1f} s, the attack {summary['attack_seconds']:.1f} s"),
        Item(
            "price",
            f"{summary['sample_forwards']:,} forward and {summary['sample_backwards']:,} backward "
            f"passes of a sample, {probes:,} forward for the checks",
        ),
        Item("rows unassigned", _unassigned(summary["rows_unassigned"])),
        Item(
            "outside the budget",
            f"{counted(summary['outside_budget'], 'example')}; they count for nothing",
        ),
        *(Item("note", note) for note in target.notes),
        *(Item("warning", warning) for warning in summary["warnings"]),
    ]


def _unassigned(count: int) -> str:
    if not count:
        return "none: every row of every model call was given to its sample"
    return f"{counted(count, 'row')} belong to no sample for certain, and are in no figure"


def _listed(values: dict[str, Any]) -> list[Item]:
    """Names and values, those that were left open by nobody."""
    return [
        Item(name, value if isinstance(value, str) else json.dumps(value), is_code=True)
        for name, value in values.items()
        if value is not None
    ]


REPRODUCTION = Section("to-repeat-it", "To repeat it", _draw)
