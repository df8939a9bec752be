"""The section on error rates: its curve, its sentence, and a tolerance of 0."""

from dataclasses import replace

from flatguard.checks.error_rates import chance_of_pass
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.error_rates import ERROR_RATES
from flatguard.reporting.sections.section import NotMeasured, SectionContent
from flatguard.runs.run import Run


def test_the_curve_is_that_of_the_runs_own_images_and_tolerance(run: Run) -> None:
    judged = JudgedRun.load(run)
    content = ERROR_RATES.build(judged)
    assert isinstance(content, SectionContent)
    n, tolerance = len(judged.samples), judged.verdict.tolerance
    curve = content.data["curve"]
    for point in curve:
        assert point["passes"] == chance_of_pass(n, tolerance, point["overestimate"])
    assert (curve[0]["passes"], curve[-1]["overestimate"]) == (1.0, 3 * tolerance)
    assert f"With {n} images a true overestimate of" in content.intro
    assert f"tolerance {tolerance:.1%}" in content.figures[0].image


def test_where_nothing_is_accepted_there_is_no_curve(run: Run) -> None:
    judged = JudgedRun.load(run)
    strict = judged.verdict.model_copy(update={"tolerance": 0.0, "error_rates": ()})
    assert isinstance(ERROR_RATES.build(replace(judged, verdict=strict)), NotMeasured)
