"""What the papers say, as data: the text of each claim, and the rule that judges it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from flatguard.checks.statistics import interval as interval_of
from flatguard.studies.claim import Claim, Verdict


class Statement(BaseModel):
    """One claim of a paper before it is measured; an entry of a `claims.yaml`.

    Its texts may hold `{fields}`, which the measurement fills in.

    Attributes:
        name: of the claim, unique within its study; the entry's key.
        claim, paper, rule, note: as in `Claim`.
        missing: why nothing was measured, where that happens.
        at_least, at_most: the bounds of our number.
        interval_above: what the whole 95% interval has to lie above.
        refutes: a miss refutes the statement as printed; otherwise the verdict is `differs`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    claim: str
    paper: str
    rule: str
    note: str = ""
    missing: str = ""
    at_least: float = -math.inf
    at_most: float = math.inf
    interval_above: float | None = None
    refutes: bool = False

    def judge(
        self,
        ours: float,
        *,
        interval: tuple[float, float] | None = None,
        samples: int = 0,
        is_share: bool = False,
        also: bool = True,
        **fields: Any,
    ) -> Claim:
        """The claim with a number that was measured.

        Args:
            ours: the number.
            interval: its 95% interval.
            samples: the number of samples behind it.
            is_share: whether it is a share.
            also: the part of the rule that is no bound of the number or its interval.
            **fields: for the texts.
        """
        low = -math.inf if interval is None else interval[0]
        above = self.interval_above is None or low > self.interval_above
        holds = also and above and self.at_least <= ours <= self.at_most
        verdict: Verdict = "agrees" if holds else "refuted" if self.refutes else "differs"
        return Claim(
            ours=ours,
            interval=interval,
            samples=samples,
            is_share=is_share,
            verdict=verdict,
            note=self._filled(self.note, fields),
            **self._texts(fields),
        )

    def share(self, held: int, n: int, *, also: bool = True, **fields: Any) -> Claim:
        """The claim that holds for `held` of `n` samples, with its exact interval.

        Without samples it is not measured, unless `also` decides against it already.
        """
        counts = {"held": held, "broken": n - held, "n": n}
        if not n and also:
            return self.not_measured(**counts, **fields)
        bounds = interval_of(held, n) if n else None
        return self.judge(
            held / n if n else math.nan,
            interval=bounds,
            samples=n,
            is_share=True,
            also=also,
            **counts,
            **fields,
        )

    def share_of(self, holds: Iterable[Any], **fields: Any) -> Claim:
        """The claim with the share of samples for which it holds."""
        held = [bool(one) for one in holds]
        return self.share(sum(held), len(held), **fields)

    def not_measured(self, **fields: Any) -> Claim:
        """The claim without a number, with the reason."""
        why = self._filled(self.missing, fields)
        return Claim(verdict="not-measured", note=why, **self._texts(fields))

    def _texts(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        names = ("name", "claim", "paper", "rule")
        return {name: self._filled(getattr(self, name), fields) for name in names}

    def _filled(self, text: str, fields: Mapping[str, Any]) -> str:
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        return text.format_map({**bounds, **fields})


def statements(paper: str, group: str) -> dict[str, Statement]:
    """One group of a paper's claims, by name.

    Args:
        paper: its folder here: `walter` or `stutz`.
        group: its key in the folder's `claims.yaml`.
    """
    entries = read_data(paper, "claims.yaml")[group]
    return {name: Statement(name=name, **entry) for name, entry in entries.items()}


@cache
def read_data(paper: str, file: str) -> dict[str, Any]:
    """A data file of a paper's folder."""
    text = files("flatguard.studies").joinpath(paper, file).read_text("utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data
