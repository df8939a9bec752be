"""Made-up run folders that are edited as a hostile writer would edit them."""

from pathlib import Path

import pytest

import flatguard
from flatguard.errors import RunFolderError
from flatguard.reporting.report import write_report
from flatguard.runs.run import load_run

RUN = Path("run")
MANIFEST = Path("run/evidence/manifest.json")


def refused(expected: str) -> None:
    """Judging and drawing both say so, in one line, with nothing written."""
    before = sorted(Path("run").rglob("*"))
    for work in (flatguard.audit, lambda path: write_report(load_run(path))):
        with pytest.raises(RunFolderError, match=expected) as caught:
            work("run")
        assert len(str(caught.value).splitlines()) == 1
    assert sorted(Path("run").rglob("*")) == before
