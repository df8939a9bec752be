"""A run on a RobustBench entry beside the entry's published figures.

A figure is compared where images, radius, preprocessing and model are those of the benchmark; every
difference is named in place of a comparison. The images of a run are a part of the benchmark's, so
the test is hypergeometric.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks.claims.claim import ClaimedShare
from flatguard.checks.claims.exact_test import Distribution, ExactTest, exact_test
from flatguard.checks.preflight.leaderboard import (
    EntryName,
    LeaderboardRow,
    entry_of,
    find_row,
    table_of,
)
from flatguard.checks.statistics import interval
from flatguard.geometry.budget import parse_eps
from flatguard.runs.run import Run

SOURCE = "RobustBench (Croce et al. 2021), its public model_info of 2025-03-31"
_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""On how many images the figures were measured."""
_LATER = ("AutoAttack", "external evaluation")
"""The figures that others measured after the authors."""
_STANDARD = "standard"
"""The attack of the benchmark: AutoAttack's standard version."""
_ROUNDING = 5e-5
"""Figures have two digits after the percent's point."""

Compatible = Literal["compatible", "lower", "higher", "higher, as a weaker attack leaves"]


class Figure(BaseModel):
    """A published figure beside the run's.

    Attributes:
        name: `clean`, `reported by the authors`, `AutoAttack`, `external evaluation` or
            `corruptions`.
        published: the share.
        measured: the run's; None where it is not compared.
        test: the exact test of the run's number; None where it is not compared.
        answer: whether they agree; None where they are not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    published: float
    measured: float | None = None
    test: ExactTest | None = None
    answer: Compatible | None = None


class Difference(BaseModel):
    """How a run differs from the benchmark.

    Attributes:
        what: `images`, `radius`, `attack`, `preprocessing`, `model`, `threat model`.
        here: in the run.
        published: in the benchmark.
        decides: whether figures cannot be compared because of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    here: str
    published: str
    decides: bool

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.what}: {self.here} here, {self.published} published"


class Rank(BaseModel):
    """The place of an accuracy among the other entries of a table, by the best known figure.

    Attributes:
        here: the place of the run's number.
        interval: the places of the ends of its 95% interval, the better one first.
        published: the place of the entry's best known figure.
        entries: how many entries the table has, with this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    here: int
    interval: tuple[int, int]
    published: int | None
    entries: int


class LeaderboardComparison(BaseModel):
    """A run beside an entry of the leaderboard.

    Attributes:
        entry: its name.
        table: `cifar10, Linf`.
        figures: what is published, in the order of the table.
        differences: of the protocol.
        rank: None where robust accuracies are not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: str
    table: str
    figures: tuple[Figure, ...]
    differences: tuple[Difference, ...]
    rank: Rank | None

    @property
    def sentence(self) -> str:
        """The comparison with the best known figure in one sentence."""
        robust = [figure for figure in self.figures if figure.name != "clean"]
        if not robust:
            return f"no robust accuracy is published for {self.entry}"
        later = [figure for figure in robust if figure.name in _LATER]
        best = min(later or robust, key=lambda figure: figure.published)
        said = f"{best.published:.2%} is published for {self.entry} ({best.name})"
        if best.measured is None or best.test is None:
            what = ", ".join(d.what for d in self.differences if d.decides)
            return f"{said}; not compared: another {what}"
        return f"{said}; {best.measured:.1%} here is {best.answer} (p = {best.test.p_value:.2g})"


def compare_with_leaderboard(
    run: Run, clean: tuple[int, int], robust: int
) -> LeaderboardComparison | None:
    """The run's entry of the leaderboard; None where its model is none, or has no row.

    Args:
        run: finished or not.
        clean: how many samples are right without an attack, and how many samples there are.
        robust: how many withstand the attack.
    """
    name = entry_of(run.manifest.target.source)
    row = None if name is None else find_row(name)
    if name is None or row is None:
        return None
    differences = _differences(run, name, row, clean[1])
    figures = tuple(_figures(run, row, differences, clean, robust))
    is_compared = any(f.answer is not None and f.name != "clean" for f in figures)
    return LeaderboardComparison(
        entry=name.entry,
        table=f"{name.dataset}, {name.threat_model}",
        figures=figures,
        differences=differences,
        rank=_rank(row, robust, clean[1]) if is_compared else None,
    )


def _differences(
    run: Run, name: EntryName, row: LeaderboardRow, count: int
) -> tuple[Difference, ...]:
    request, found = run.request, []

    def add(what: str, here: Any, published: Any, decides: bool) -> None:
        shown = (str("none" if value is None else value) for value in (here, published))
        found.append(Difference(**dict(zip(("here", "published"), shown, strict=True)),
                                what=what, decides=decides))  # fmt: skip

    size = _IMAGES[name.dataset]
    if run.manifest.data.name != name.dataset:
        add("data set", run.manifest.data.name, f"{name.dataset}'s test images", True)
    elif count != size:
        order = " drawn by the seed" if request.shuffle else ""
        first = "" if request.shuffle else "the first "
        add("images", f"{first}{count:,}{order}", f"all {size:,}", False)
    if name.threat_model.startswith("corruptions"):
        add("threat model", f"{request.attack} within {request.budget()}", name.threat_model, True)
    elif request.norm != name.threat_model:
        add("norm", request.norm, name.threat_model, True)
    elif row.eps is not None and not _same_radius(request.eps, row.eps):
        add("radius", request.eps, row.eps, True)
    wanted = run.manifest.target.preprocessing
    if wanted is not None and request.preprocessing != wanted:
        add("preprocessing", request.preprocessing, wanted, True)
    for field, what in (("resize", "size"), ("mean", "mean"), ("std", "std")):
        if getattr(request, field) is not None:
            add(what, getattr(request, field), "the entry's own", True)
    if request.logit_scale != 1.0:
        add("logits", f"times {request.logit_scale:g}", "as they are", False)
    if request.attack != _STANDARD and not name.threat_model.startswith("corruptions"):
        add("attack", request.attack, "AutoAttack, standard version", False)
    return tuple(found)


def _same_radius(one: str | None, other: str) -> bool:
    return one is not None and math.isclose(parse_eps(one), parse_eps(other), rel_tol=1e-6)


def _figures(
    run: Run,
    row: LeaderboardRow,
    differences: tuple[Difference, ...],
    clean: tuple[int, int],
    robust: int,
) -> list[Figure]:
    correct, count = clean
    spread = Distribution(count, _IMAGES[row.name.dataset])
    deciding = {difference.what for difference in differences if difference.decides}
    of_robustness = {"norm", "radius", "threat model"}
    standard = run.request.attack == _STANDARD and run.request.logit_scale == 1.0
    found = []
    if row.clean is not None:
        compared = not deciding - of_robustness
        found.append(_figure("clean", row.clean, correct, spread, compared, standard=True))
    for name, share in (
        ("reported by the authors", row.reported),
        (_LATER[0], row.autoattack),
        (_LATER[1], row.external),
        ("corruptions", row.corruptions),
    ):
        if share is not None:
            found.append(_figure(name, share, robust, spread, not deciding, standard))
    return found


def _figure(
    name: str, share: float, right: int, spread: Distribution, compared: bool, standard: bool
) -> Figure:
    if not compared:
        return Figure(name=name, published=share)
    written = ClaimedShare(value=share, rounding=_ROUNDING, written=f"{share:.2%}")
    test = exact_test(written, right, spread)
    answer: Compatible = "compatible"
    if test.is_below:
        answer = "lower"
    elif test.is_above:
        answer = "higher" if standard else "higher, as a weaker attack leaves"
    measured = right / spread.images
    return Figure(name=name, published=share, measured=measured, test=test, answer=answer)


def _rank(row: LeaderboardRow, robust: int, count: int) -> Rank:
    """The place of a number of robust samples among all other entries of the table."""
    table = [other for other in table_of(row.name) if other.best_known is not None]
    others = [other.best_known or 0.0 for other in table if other.name != row.name]

    def place(share: float) -> int:
        return 1 + sum(other > share for other in others)

    low, high = interval(robust, count)
    return Rank(
        here=place(robust / count),
        interval=(place(high), place(low)),
        published=None if row.best_known is None else place(row.best_known),
        entries=len(others) + 1,
    )
