"""Findings as cards: order, numbers in words, and why each check matters."""

import pytest

from flatguard.checks.finding import Finding
from flatguard.checks.verdict import verdict_of
from flatguard.reporting.findings import finding_cards, measured_text
from flatguard.runs.run import Run


def test_the_most_serious_finding_comes_first(run: Run) -> None:
    cards = finding_cards(verdict_of(run))
    order = ["Failed", "Warning", "Not run", "Passed"]
    places = [order.index(card.status) for card in cards]
    assert places == sorted(places)
    assert len(set(places)) > 2


def test_each_check_says_why_it_matters(run: Run) -> None:
    assert all(card.reason.endswith(".") for card in finding_cards(verdict_of(run)))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"status": "not-run"}, "not measured"),
        ({"status": "warn"}, "no single number"),
        ({"status": "pass", "value": 3.14159265}, "3.142"),
        (
            {"status": "fail", "value": 0.9, "interval": (0.683, 0.988), "threshold": 0.05},
            "90.0%, 95% interval 68.3% to 98.8%, threshold 5.0%",
        ),
    ],
)
def test_a_share_has_its_interval_and_threshold(values: dict[str, object], text: str) -> None:
    finding = Finding(check="x", summary="y", **values)  # type: ignore[arg-type]
    assert measured_text(finding) == text


def test_only_a_share_has_a_gauge(run: Run) -> None:
    for card in finding_cards(verdict_of(run)):
        is_share = card.finding.interval is not None or card.finding.threshold is not None
        assert (card.gauge is not None) == (is_share and card.finding.value is not None)
        if card.gauge is not None:
            assert f'class="dot {card.finding.status}"' in card.gauge
