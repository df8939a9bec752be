"""The claims of two papers, tested on any model.

`STUDIES` lists every figure and table of the two papers behind flatguard, and every statement that
can be tested on a model, each with its status. What the papers claim is data: `studies.yaml` and
`claims.yaml` in the folder of each paper.
"""

from __future__ import annotations

from flatguard.errors import UsageError, did_you_mean
from flatguard.studies.statement import read_data
from flatguard.studies.study import Study

__all__ = ["PAPERS", "STUDIES", "find_study"]

_REGISTRIES = [read_data(folder, "studies.yaml") for folder in ("walter", "stutz")]

PAPERS: dict[str, str] = {registry["paper"]: registry["cited"] for registry in _REGISTRIES}
"""How each paper is cited."""

STUDIES: tuple[Study, ...] = tuple(
    Study(paper=registry["paper"], **entry)
    for registry in _REGISTRIES
    for entry in registry["studies"]
)


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
