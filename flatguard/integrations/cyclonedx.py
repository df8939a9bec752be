"""A CycloneDX ML-BOM of a run: its model with a model card, its data and its software.

Format: CycloneDX 1.6 (ECMA-424), as JSON. The hashes are those of the run's manifest. They cover
tensors, not files: which ones, a property beside each hash says. The same run gives the same bytes.
"""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from flatguard.checks.finding import Finding
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import visible

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UPPER_BOUND = (
    "The corrected robust accuracy is an upper bound from the attacks that were run: a stronger "
    "attack may find more adversarial examples."
)
_FRAMEWORKS = {"torch", "transformers"}

Json = dict[str, Any]


def cyclonedx_bom(judged: JudgedRun) -> str:
    """The ML-BOM of a judged run, as JSON."""
    bom: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _metadata(judged),
        "components": [_model(judged), _data(judged), *_software(judged)],
    }
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    return json.dumps(bom, indent=2)


def _metadata(judged: JudgedRun) -> Json:
    manifest, verdict = judged.run.manifest, judged.verdict
    found: Json = {
        "tools": {
            "components": [
                {"type": "application", "name": "flatguard", "version": version("flatguard")}
            ]
        },
        "properties": _properties(
            {
                "run": judged.run.path.name,
                "run:identity": manifest.identity,
                "run:complete": str(judged.run.complete).lower(),
                "verdict": verdict.verdict,
                "verdict:sentence": verdict.sentence,
                "adversarial-images:sha256": judged.summary["adversarial_sha256"],
            }
        ),
    }
    created = _moment(manifest.created)
    return found if created is None else {"timestamp": created, **found}


def _moment(text: str) -> str | None:
    """A time of RFC 3339, in UTC; None if the manifest has none."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        return moment.astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return None


def _model(judged: JudgedRun) -> Json:
    target, request = judged.run.manifest.target, judged.run.request
    facts = {"source": target.source, "logit-scale": f"{request.logit_scale:g}"}
    if target.not_hashed:
        facts["weights:not-hashed"] = ", ".join(target.not_hashed)
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": visible(target.name),
        **_hashed(
            "weights", target.weights_sha256, facts,
            "names, types, shapes and bytes of all tensors that torch registers; not a file",
        ),
        "modelCard": {
            "modelParameters": {
                "task": "classification",
                "datasets": [{"ref": "data"}],
                "inputs": [{"format": "image"}],
                "outputs": [{"format": f"{target.num_classes} logits"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(judged)},
            "considerations": {"technicalLimitations": _limitations(judged)},
        },
    }  # fmt: skip


def _metrics(judged: JudgedRun) -> list[Json]:
    """Accuracies with their exact 95% intervals."""
    summary, verdict = judged.summary, judged.verdict
    under = f"{judged.run.request.attack} within {judged.budget}"
    rows = (
        ("clean accuracy", summary["clean_accuracy"], summary["clean_interval"], "no attack"),
        ("robust accuracy, reported", verdict.robust_accuracy, summary["robust_interval"], under),
        (
            "robust accuracy, corrected (upper bound)", verdict.corrected_robust_accuracy,
            verdict.corrected_interval, f"worst case of all attacks within {judged.budget}",
        ),
    )  # fmt: skip
    return [
        {
            "type": name,
            "value": f"{share:.6g}",
            "slice": visible(where),
            "confidenceInterval": {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"},
        }
        for name, share, (low, high), where in rows
    ]


def _limitations(judged: JudgedRun) -> list[str]:
    """The verdict, what failed, what was not measured, and what the numbers do not say."""
    findings = judged.verdict.findings
    missing = [finding.check for finding in findings if finding.status == "not-run"]
    return [
        visible(judged.verdict.sentence),
        *(_of(finding) for finding in findings if finding.status in ("fail", "warn")),
        *([f"Not measured: {visible(', '.join(missing))}."] if missing else []),
        _UPPER_BOUND,
    ]


def _of(finding: Finding) -> str:
    return visible(f"{finding.check} ({finding.status}): {finding.summary}")


def _data(judged: JudgedRun) -> Json:
    data = judged.run.manifest.data
    facts = {
        "evaluated": str(len(judged.samples)),
        "planned": str(judged.run.manifest.blocks[-1].stop),
        "size": str(data.size),
        "image-shape": "x".join(map(str, data.image_shape)),
    }
    return {
        "type": "data",
        "bom-ref": "data",
        "name": visible(data.name),
        **_hashed("data", data.sha256, facts, "the images and labels that are evaluated; no file"),
        "data": [{"type": "dataset", "name": visible(data.name)}],
    }


def _software(judged: JudgedRun) -> list[Json]:
    """Python, the platform and the packages that the run was made with."""
    versions = judged.run.manifest.versions
    return [_package(name, release) for name, release in sorted(versions.items())]


def _package(name: str, release: str) -> Json:
    ref = {"bom-ref": f"software:{visible(name)}"}
    if name == "platform":
        return {"type": "operating-system", **ref, "name": visible(release)}
    found = {**ref, "name": visible(name), "version": visible(release)}
    if name == "python":
        return {"type": "platform", **found}
    kind = "framework" if name in _FRAMEWORKS else "library"
    project = re.sub(r"[-_.]+", "-", found["name"]).lower()  # as the package index normalises names
    package = f"pkg:pypi/{quote(project, safe='')}@{quote(found['version'], safe='')}"
    return {"type": kind, **found, "purl": package}


def _hashed(what: str, digest: str, facts: dict[str, str], covers: str) -> Json:
    """Hash and properties of a component; a hash that is none is left out, and shown as given."""
    if _SHA256.fullmatch(digest):
        hashes = {"hashes": [{"alg": "SHA-256", "content": digest}]}
        return {**hashes, "properties": _properties({f"{what}:sha256-of": covers, **facts})}
    return {"properties": _properties({f"{what}:sha256": digest or "not measured", **facts})}


def _properties(values: dict[str, str]) -> list[Json]:
    return [
        {"name": f"flatguard:{name}", "value": visible(value)} for name, value in values.items()
    ]
