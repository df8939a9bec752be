"""Publishing a folder: completely or not at all, and the first one counts."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from flatguard.errors import RunFolderError
from flatguard.runs.checksums import compare
from flatguard.runs.facts import Timing
from flatguard.runs.json_files import read_sealed
from flatguard.runs.layout import STAGING
from flatguard.runs.owners import ending
from flatguard.runs.publishing import complete, publish, stage, unstage, writing


class Facts(BaseModel):
    value: int
    files: dict[str, str] = {}


def published(run: Path, value: int, **how: bool) -> Path:
    folder, final = stage(run, "name"), run / "evidence" / "name"
    folder.mkdir(parents=True)
    (folder / "table").write_text(str(value))
    seal = complete(folder, "facts.json", Facts(value=value), {"attack": 1.5})
    publish(folder, final, **how)
    unstage(folder)
    assert not (run / STAGING).exists()
    facts = read_sealed(Facts, final / "facts.json")
    assert (facts.value == value) == seal.startswith(_seal(final))
    compare(final, facts.files)
    assert list(facts.files) == ["table"]
    return final


def _seal(folder: Path) -> str:
    return str(json.loads((folder / "facts.json").read_text())["seal"])


def test_the_first_counts_unless_it_is_replaced(tmp_path: Path) -> None:
    final = published(tmp_path, 1)
    assert read_sealed(Timing, final / "timing.json").seconds == {"attack": 1.5}
    published(tmp_path, 2)
    assert (final / "table").read_text() == "1"
    published(tmp_path, 3, replaces=True)
    assert (final / "table").read_text() == "3"
    assert [path.name for path in final.parent.iterdir()] == ["name"]


def test_what_is_staged_is_named_after_this_process_and_a_link_is_refused(tmp_path: Path) -> None:
    assert stage(tmp_path, "00001").name == f"00001{ending()}"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / STAGING).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="is a link"):
        stage(tmp_path, "00001")


def test_an_error_of_the_system_is_one_line() -> None:
    with pytest.raises(RunFolderError, match="cannot write block 7: "), writing("block 7"):
        Path("/nowhere/at/all").write_text("")
