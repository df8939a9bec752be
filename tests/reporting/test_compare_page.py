"""The page of a comparison, and the sentences that the command line shares with it."""

import pytest

from flatguard.reporting.compare import Paired, compare_runs
from flatguard.reporting.compare_page import compare_page, difference, headline, p_value, points
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.paired_path import paired_path
from flatguard.reporting.text import MINUS
from flatguard.runs.run import Run


def test_the_page_escapes_the_names_of_runs(hostile: Run) -> None:
    found, judged = compare_runs(hostile, hostile), JudgedRun.load(hostile)
    page = compare_page(found, paired_path(judged, judged, found))
    assert page.count("<script>") == 1
    assert "document.title=&#39;owned&#39;" in page


def test_the_headline_has_both_numbers_and_the_difference_its_test(run: Run) -> None:
    found = compare_runs(run, run)
    share = f"{found.accuracies[2].first:.1%}"
    reported = f"{found.accuracies[1].first:.1%}"
    assert headline(found) == (
        f"Robust accuracy: reported {reported} against {reported}, "
        f"corrected {share} against {share}"
    )
    assert difference(found).startswith("Corrected robust accuracy, B minus A: 0.0 points (")
    assert difference(found).endswith("p = 1")


def test_differences_are_signed_points() -> None:
    paired = Paired(
        name="x", first=0.5, second=0.4, difference=-0.1, interval=(-0.2, 0.05),
        only_first=(), only_second=(), p_value=0.5,
    )  # fmt: skip
    assert points(paired) == f"{MINUS}10.0 points ({MINUS}20.0 to +5.0)"


@pytest.mark.parametrize(("p", "text"), [(0.0312, "p = 0.031"), (1e-5, "p < 0.0001")])
def test_tiny_p_values_are_bounds(p: float, text: str) -> None:
    assert p_value(p) == text


def test_many_samples_are_counted_not_listed(run: Run) -> None:
    found = compare_runs(run, run)
    many = found.accuracies[0].model_copy(update={"only_first": tuple(range(1200))})
    page = compare_page(found.model_copy(update={"accuracies": (many,) * 3}), None)
    assert "198, 199 and 1,000 more" in page
