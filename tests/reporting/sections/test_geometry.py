from dataclasses import replace

from support.pages import content

from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.geometry import GEOMETRY
from flatguard.reporting.sections.section import NotMeasured
from flatguard.reporting.text import number
from flatguard.runs.run import Run


def test_the_numbers_are_those_of_the_basins(run: Run) -> None:
    judged = JudgedRun.load(run)
    found, basins = content(GEOMETRY, judged), judged.basins
    assert found.data["samples"] == len(basins.table) == 60
    assert found.data["left"] == basins.table["left"].sum()
    flatter, fooled = basins.flatter
    assert found.data["flatter_than_clean"]["count"] == flatter
    assert f"{flatter / fooled:.1%} of {fooled} adversarial examples" in found.intro
    widths, by_kappa = found.figures
    assert widths.table is not None
    last = widths.table.rows[-1]
    survived = basins.table[basins.table["robust"]]
    assert f"{1 - survived['left'].mean():.1%}" in last
    assert by_kappa.table is not None
    assert len(by_kappa.table.rows) == 4, "one row for each quarter of clean log κ"
    quarter = basins.table.sort_values("log_kappa").head(15)["width"]
    assert by_kappa.table.rows[0][1].startswith(number(quarter.median()))


def test_few_samples_have_no_quarters(run: Run) -> None:
    judged = JudgedRun.load(run)
    judged.__dict__["basins"] = replace(judged.basins, table=judged.basins.table.head(23))
    assert [figure.text.name for figure in content(GEOMETRY, judged).figures] == ["basins"]


def test_without_calls_nothing_is_shown(run: Run) -> None:
    judged = JudgedRun.load(run)
    judged.__dict__["basins"] = replace(judged.basins, table=judged.basins.table.head(0))
    assert isinstance(GEOMETRY.build(judged), NotMeasured)
