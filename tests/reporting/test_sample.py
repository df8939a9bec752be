"""The committed sample is what the code draws now, in structure."""

import base64
import hashlib
import json
import re
from pathlib import Path

import jsonschema
import pytest

from flatguard.checks.registry import check_names
from flatguard.reporting.sections import SECTIONS
from flatguard.reporting.sections.claim import CLAIM
from flatguard.reporting.sections.leaderboard import LEADERBOARD
from flatguard.reporting.sections.resubmission import RESUBMISSION

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "reports" / "sample"


@pytest.fixture(scope="module")
def page() -> str:
    return (SAMPLE / "report.html").read_text("utf-8")


def test_it_is_small_and_names_no_machine(page: str) -> None:
    assert len(page) < 1.5e6
    for file in SAMPLE.iterdir():
        assert not re.search(r"/(home|tmp|root|work|Users)/", file.read_text("utf-8")), file


def test_it_has_every_section_and_check(page: str) -> None:
    document = json.loads((SAMPLE / "report.json").read_text("utf-8"))
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    # Its target is not randomised and no entry of the leaderboard, and nobody made a claim.
    left_out = (RESUBMISSION, CLAIM, LEADERBOARD)
    sections = [s.name for s in SECTIONS if s not in left_out]
    assert [s["name"] for s in document["sections"] if s["measured"]] == sections
    assert [s["name"] for s in document["sections"] if not s["measured"]] == [RESUBMISSION.name]
    for name in sections:
        assert f'<section id="{name}">' in page
    assert len(document["findings"]) == len(check_names())
    assert document["judgement"]["verdict"] == "masked"


def test_its_policy_allows_its_own_script_and_style(page: str) -> None:
    for tag in ("script", "style"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page


def test_the_readmes_pictures_are_there() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+)\)", readme)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 300_000
