"""A run on a RobustBench entry beside the entry's published figures."""

from __future__ import annotations

from flatguard.checks.claims.leaderboard_comparison import (
    SOURCE,
    Figure,
    LeaderboardComparison,
    Rank,
)
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Section, SectionContent
from flatguard.reporting.templating import facts_table


def _build(judged: JudgedRun) -> SectionContent | None:
    found = judged.leaderboard
    if found is None:
        return None
    return SectionContent(
        html=facts_table(leaderboard_rows(found)),
        intro=(
            f"{found.sentence[0].upper()}{found.sentence[1:]}. Figures of {found.entry} "
            f"({found.table}): {SOURCE}. Where images, radius and preprocessing are those of the "
            "benchmark, the run's images are a part of the benchmark's, and the test is exact "
            "(hypergeometric, two-sided)."
        ),
        data=found.model_dump(mode="json"),
    )


def leaderboard_rows(found: LeaderboardComparison) -> list[tuple[str, str]]:
    """Names and values: the figures, the rank, and the differences."""
    rows = [(f"published, {figure.name}", _figure(figure)) for figure in found.figures]
    if found.rank is not None:
        rows.append(("rank", _rank(found.rank)))
    return [*rows, *(("difference", each.text) for each in found.differences)]


def _figure(figure: Figure) -> str:
    said = f"{figure.published:.2%}"
    if figure.measured is None or figure.test is None:
        return f"{said}; not compared"
    return f"{said}; {figure.measured:.1%} here: {figure.answer} (p = {figure.test.p_value:.2g})"


def _rank(rank: Rank) -> str:
    best, worst = rank.interval
    entry = "" if rank.published is None else f"; the entry's own is {rank.published}"
    return f"{rank.here} of {rank.entries} with this number (95%: {best} to {worst}){entry}"


LEADERBOARD = Section("leaderboard", "Beside the leaderboard", _build)
