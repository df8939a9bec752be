from pathlib import Path

import pytest
from support.reports import HOSTILE, judged

from flatguard.runs.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return judged(tmp_path_factory.mktemp("reports") / "run")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return judged(tmp_path_factory.mktemp("reports") / "a<b>&'run'", names=HOSTILE)


@pytest.fixture
def fresh(tmp_path: Path) -> Run:
    return judged(tmp_path / "fresh")
