"""The section "Before the attack"."""

from typing import Any

import pytest
from support.pages import content, with_probes
from support.preflight import OTHER, facts

from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.preflight.facts import Difference, Published, TriedInput
from flatguard.reporting.sections.preflight import PREFLIGHT
from flatguard.reporting.sections.section import NotMeasured, SectionContent
from flatguard.runs.run import Run

PROBING = "flatguard audit RUN --checks fast"


def section(run: Run, **changes: Any) -> SectionContent:
    stored = {**facts(**changes).model_dump(mode="json"), "ran": True}
    return content(PREFLIGHT, with_probes(run, preflight=ProbeEvidence(stored)))


def test_every_measured_part_has_its_row(run: Run) -> None:
    html = str(section(run).html)
    for row, cell in (
        ("shown again", "the same logits for 16 images shown again"),
        ("beside other images", "logits differ by 0 of their size; 0 of 16 decisions change"),
        ("as a single image", "works"),
        ("output", "logits from \N{MINUS SIGN}3 to 7"),
        ("pixels", "from 0 to 1"),
    ):
        assert f"<th scope='row'>{row}</th><td>{cell}</td>" in html


def test_differences_are_told_with_their_size(run: Run) -> None:
    html = str(section(run, smaller_batch=OTHER, single_image="gives (10,) for (1, 10)").html)
    assert "logits differ by 0.25 of their size; 3 of 16 decisions change" in html
    assert "gives (10,) for (1, 10)" in html
    infinite = Difference(largest=None, flips=0, images=16)
    assert "logits that are not finite" in str(section(run, after_calls=infinite).html)


def test_what_was_not_compared_is_said(run: Run) -> None:
    assert str(section(run, other_neighbours=None).html).count("not compared") == 1


def test_the_published_figure_and_what_was_tried(run: Run) -> None:
    tried = TriedInput(
        name="BGR <b>", how="with BGR", correct=90, own=40, gained=50, lost=0, images=100
    )
    published = Published(entry="Someone2020Title", accuracy=0.875)
    found = section(run, tried=(tried,), published=published)
    assert "87.5% for Someone2020Title" in str(found.html)
    assert "BGR &lt;b&gt; tried" in str(found.html)
    assert "90 of 100 right, 40 without" in str(found.html)
    assert found.data["published"] == {"entry": "Someone2020Title", "accuracy": 0.875}


def test_the_price_is_in_the_intro(run: Run) -> None:
    assert "100 clean images classified before the attack" in section(run).intro
    assert "300 forward passes of one image" in section(run).intro


@pytest.mark.parametrize(
    ("stored", "how"),
    [
        ({"ran": False, "reason": "no"}, "correct what stopped it, then " + PROBING),
        ({"ran": False, "reason": "no", "budget": True}, PROBING),
        ({"ran": True, "clean": 3}, None),
    ],
)
def test_without_facts_a_command_that_helps_is_named(
    run: Run, stored: dict[str, Any], how: str | None
) -> None:
    found = PREFLIGHT.build(with_probes(run, preflight=ProbeEvidence(stored)))
    assert isinstance(found, NotMeasured)
    assert found.how == how
