"""A paper's claim, one a file: probes and checks composed, with a verdict.

`STUDIES` names every figure and table of the two papers that flatguard stands on, and the
statements that a model can put to the test, each with its status.
"""

from __future__ import annotations

from flatguard.errors import UsageError, did_you_mean
from flatguard.studies.claim import Claim, Verdict
from flatguard.studies.study import Outcome, Protocol, Study, Subject
from flatguard.studies.stutz import STUTZ
from flatguard.studies.walter import WALTER

__all__ = [
    "STUDIES", "Claim", "Outcome", "Protocol", "Study", "Subject", "Verdict", "find_study",
]  # fmt: skip

STUDIES: tuple[Study, ...] = (*WALTER, *STUTZ)


def find_study(name: str) -> Study:
    """The study of this name, whatever its case.

    Raises:
        UsageError: unknown, with the nearest names.
    """
    for study in STUDIES:
        if study.name == name.lower():
            return study
    hint = did_you_mean(name, [study.name for study in STUDIES])
    raise UsageError(f"no study {name!r}{hint}; `flatguard reproduce --list` names them all")
