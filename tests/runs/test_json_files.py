"""JSON files with and without a seal."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.run_folders import RUN, refused

from benchmarks.fuzz.forging import block_folder
from flatguard.errors import RunFolderError
from flatguard.runs.json_files import read_json, read_sealed, write_sealed, write_text
from flatguard.runs.run import Run


@pytest.mark.parametrize(
    "name", ["manifest.json", "blocks/{0}/block.json", "probes/twins/probe.json"]
)
def test_an_edit_without_a_new_seal_is_damage(run: Run, name: str) -> None:
    file = RUN / "evidence" / name.format(block_folder(RUN).name)
    content = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**content, "more": 1}), "utf-8")
    refused(f"{file.name} is damaged: its checksum does not match")


class Pair(BaseModel):
    one: int
    two: str = "é\n"


def test_a_sealed_file_is_read_as_it_was_written_and_held_to_its_seal(tmp_path: Path) -> None:
    file = tmp_path / "pair.json"
    seal = write_sealed(file, Pair(one=1))
    assert json.loads(file.read_text("utf-8"))["seal"] == seal
    assert read_sealed(Pair, file, seal_begins=seal[:12]) == Pair(one=1)
    with pytest.raises(RunFolderError, match="its checksum does not match"):
        read_sealed(Pair, file, seal_begins="0" * 12)
    for text in ('{"one": 1}', '{"one": 1, "seal": 5}', "[]", "{", ""):
        file.write_text(text)
        with pytest.raises(RunFolderError, match="is damaged") as caught:
            read_sealed(Pair, file)
        assert len(str(caught.value).splitlines()) == 1


def test_a_file_without_a_seal_is_checked_by_its_model(tmp_path: Path) -> None:
    file = tmp_path / "pair.json"
    write_text(file, Pair(one=2).model_dump_json())
    assert read_json(Pair, file) == Pair(one=2)
    write_text(file, '{"one": "two"}')
    with pytest.raises(RunFolderError, match=r"pair\.json is damaged: one"):
        read_json(Pair, file)
    with pytest.raises(RunFolderError, match="is missing"):
        read_json(Pair, tmp_path / "none.json")
    assert [path.name for path in tmp_path.iterdir()] == ["pair.json"]
