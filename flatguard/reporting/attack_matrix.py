"""A matrix of attack attempts and samples: which attempt fools which sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from flatguard.reporting.figure import Figure, FigureText, Table
from flatguard.reporting.interval_chart import LABEL_WIDTH, ROW_HEIGHT, row_label
from flatguard.reporting.svg import Scale, coordinate, drawing, path, text

_WIDTH, _RIGHT, _TOP, _BOTTOM = 940.0, 10.0, 12.0, 42.0
_MOST_COLUMNS = 360
_SHADES = 4


@dataclass(frozen=True)
class AttemptRow:
    """The result of one attempt for each sample: 1 fooled, 0 survived, NaN not tried."""

    name: str
    fooled: np.ndarray

    @property
    def tried_count(self) -> int:
        """How many samples it was tried on."""
        return int(np.isfinite(self.fooled).sum())

    @property
    def fooled_count(self) -> int:
        """How many samples it fooled."""
        return int(np.nansum(self.fooled))


def attack_matrix(words: FigureText, unit: str, rows: Sequence[AttemptRow]) -> Figure:
    """Which attempt fools which sample; samples with the same results are neighbours.

    Many samples share a column. Its shade is the share of them that are fooled.
    """
    fooled = np.stack([row.fooled for row in rows])
    order = np.lexsort(tuple(-np.nan_to_num(row, nan=-1.0) for row in reversed(fooled)))
    columns = np.array_split(fooled[:, order], min(_MOST_COLUMNS, fooled.shape[1]), axis=1)
    scale = Scale(0.0, float(len(columns)), LABEL_WIDTH, _WIDTH - _RIGHT)
    height = _TOP + ROW_HEIGHT * len(rows) + _BOTTOM
    parts = []
    for index, row in enumerate(rows):
        top = _TOP + ROW_HEIGHT * index
        shares = np.array([_mean(column[index]) for column in columns])
        parts.append(row_label(row.name, top + ROW_HEIGHT / 2))
        parts.extend(_cells(scale, shares, top + 2, ROW_HEIGHT - 4))
    middle = (LABEL_WIDTH + _WIDTH - _RIGHT) / 2
    parts.append(text(middle, height - 10, f"{unit}, grouped by result", "label middle"))
    return Figure(
        words,
        drawing(_WIDTH, height, words.alt, parts),
        table=Table(
            ("attempt", "tried on", "fooled"),
            tuple((row.name, str(row.tried_count), str(row.fooled_count)) for row in rows),
        ),
        wide=True,
    )


def _mean(values: np.ndarray) -> float:
    tried = values[np.isfinite(values)]
    return float(tried.mean()) if len(tried) else float("nan")


def _cells(scale: Scale, shares: np.ndarray, top: float, height: float) -> list[Markup]:
    """One path for each shade of a row; neighbours of one shade are one rectangle."""
    shades = np.where(np.isfinite(shares), np.ceil(np.nan_to_num(shares) * _SHADES), -1).astype(int)
    ends = [0, *(np.flatnonzero(np.diff(shades)) + 1).tolist(), len(shades)]
    paths: dict[int, str] = {}
    for begin, end in pairwise(ends):
        left, width = coordinate(scale(begin)), coordinate(scale(end) - scale(begin))
        box = f"M{left} {coordinate(top)}h{width}v{coordinate(height)}h-{width}z"
        paths[int(shades[begin])] = paths.get(int(shades[begin]), "") + box
    return [path(d, f"cell shade{shade}") for shade, d in sorted(paths.items()) if shade >= 0]
