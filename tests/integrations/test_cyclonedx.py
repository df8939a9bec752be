"""The ML-BOM is valid by CycloneDX's own library, and says what the run's manifest says."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.reports import HOSTILE, judged

from flatguard.integrations.cyclonedx import cyclonedx_bom
from flatguard.reporting.judged_run import JudgedRun
from flatguard.runs.run import Run


def bom_of(run: Run, **manifest: Any) -> dict[str, Any]:
    """The BOM, checked by the strict validator; fields of the manifest can be replaced."""
    pytest.importorskip("cyclonedx", reason="the validator needs cyclonedx-python-lib")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    judged_run = JudgedRun.load(run)
    run.manifest = run.manifest.model_copy(update=manifest)
    text = cyclonedx_bom(judged_run)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


def component(bom: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [one for one in bom["components"] if one["type"] == kind]
    return found  # type: ignore[no-any-return]


def properties(part: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in part["properties"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return judged(tmp_path_factory.mktemp("bom") / "run")


@pytest.fixture
def run(made: Run) -> Run:
    return Run(made.storage, made.manifest)


def test_the_validator_finds_a_wrong_bom(run: Run) -> None:
    pytest.importorskip("cyclonedx")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    wrong = cyclonedx_bom(JudgedRun.load(run)).replace('"modelCard"', '"modelcard"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(wrong) is not None


def test_the_model_has_its_hash_and_a_card(run: Run) -> None:
    model = component(bom_of(run), "machine-learning-model")
    target, verdict = run.manifest.target, JudgedRun.load(run).verdict
    assert model["name"] == target.name
    assert model["hashes"] == [{"alg": "SHA-256", "content": target.weights_sha256}]
    card = model["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": "data"}]
    assert card["modelParameters"]["outputs"] == [{"format": f"{target.num_classes} logits"}]
    clean, reported, corrected = card["quantitativeAnalysis"]["performanceMetrics"]
    assert float(clean["value"]) == run.summary["clean_accuracy"]
    assert float(reported["value"]) == pytest.approx(verdict.robust_accuracy, abs=1e-6)
    low, high = (
        float(corrected["confidenceInterval"][f"{end}Bound"]) for end in ("lower", "upper")
    )
    assert (low, high) == pytest.approx(verdict.corrected_interval, abs=1e-6)
    limits = card["considerations"]["technicalLimitations"]
    assert verdict.sentence in limits
    (missing,) = [line for line in limits if line.startswith("Not measured: ")]
    assert all(one.check in missing for one in verdict.findings if one.status == "not-run")


def test_the_data_have_their_hash_and_count(run: Run) -> None:
    data = component(bom_of(run), "data")
    facts = run.manifest.data
    assert data["hashes"] == [{"alg": "SHA-256", "content": facts.sha256}]
    found = properties(data)
    assert found["flatguard:evaluated"] == str(len(run.samples))
    assert found["flatguard:size"] == str(facts.size)
    assert found["flatguard:image-shape"] == "3x8x8"


def test_the_software_is_that_of_the_run(run: Run) -> None:
    versions = {"python": "3.11.7", "platform": "Linux-6", "torch": "2.13.0+cpu", "Open_Clip": "1"}
    bom = bom_of(run, versions=versions)
    torch = component(bom, "framework")
    assert (torch["name"], torch["version"]) == ("torch", "2.13.0+cpu")
    assert torch["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert component(bom, "platform")["version"] == "3.11.7"
    assert component(bom, "operating-system")["name"] == "Linux-6"
    assert component(bom, "library")["purl"] == "pkg:pypi/open-clip@1"


def test_the_same_run_gives_the_same_bytes(run: Run) -> None:
    again = Run(run.storage, run.manifest)
    assert cyclonedx_bom(JudgedRun.load(run)) == cyclonedx_bom(JudgedRun.load(again))
    other = bom_of(run, created="2026-01-02T03:04:06+00:00")
    assert other["serialNumber"] != bom_of(again)["serialNumber"]


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05+00:00"), ("yesterday", None),
        ("2026-01-02T03:04:05", None), ("0001-01-01T00:00:00+14:00", None), ("", None),
    ],
)  # fmt: skip
def test_a_time_that_is_none_is_left_out(run: Run, created: str, expected: str | None) -> None:
    assert bom_of(run, created=created)["metadata"].get("timestamp") == expected


@pytest.mark.parametrize("digest", ["", "0" * 63, "../x", "é" * 64, "0" * 64 + "\n"])
def test_a_hash_that_is_none_is_no_hash(run: Run, digest: str) -> None:
    target = run.manifest.target.model_copy(update={"weights_sha256": digest})
    model = component(bom_of(run, target=target), "machine-learning-model")
    assert "hashes" not in model
    assert properties(model)["flatguard:weights:sha256"]


def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    run = judged(tmp_path / "hostile", names=HOSTILE)
    bom = bom_of(run, versions={"a b/../\u202e": "1 \x00 \ud800", "python": "\ud800"})
    assert "\u202e" not in json.dumps(bom, ensure_ascii=False)
    assert component(bom, "library")["purl"].startswith("pkg:pypi/a%20b")
