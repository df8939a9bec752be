"""Run folders from untrusted sources: only plain files, limited memory, no code."""

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.reports import SMALL
from support.run_folders import MANIFEST, RUN, refused

import flatguard
from benchmarks.fuzz.forging import block_folder, forge, sign
from benchmarks.synthetic import make_run
from flatguard.cli.app import main
from flatguard.errors import RunFolderError, UntrustedCodeError
from flatguard.runs import untrusted
from flatguard.runs.run import Run


@pytest.mark.parametrize(
    "place",
    [
        "evidence", "evidence/blocks", "evidence/blocks/{0}", "evidence/blocks/{0}/block.json",
        "evidence/blocks/{0}/samples.parquet", "evidence/probes", "evidence/probes/twins",
        "evidence/probes/twins/attempts.parquet", "evidence/manifest.json",
        "evidence/blocks/{1}/adversarial.safetensors",
    ],
)  # fmt: skip
def test_links_are_not_followed(run: Run, place: str) -> None:
    """Not even to the very same content."""
    names = [block_folder(RUN, index).name for index in (0, 1)]
    inside, outside = RUN / place.format(*names), Path("elsewhere")
    inside.rename(outside)
    inside.symlink_to(outside.resolve())
    refused(r"is a link; a run folder holds plain files")


def test_a_pipe_is_refused_at_once(block: Path) -> None:
    for name in ("block.json", "samples.parquet"):
        whole = (block / name).read_bytes()
        (block / name).unlink()
        os.mkfifo(block / name)
        refused(r"is no plain file")
        (block / name).unlink()
        (block / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["manifest.json", "blocks/{0}/block.json"])
def test_a_file_of_a_gigabyte_of_nothing(run: Run, name: str) -> None:
    with (RUN / "evidence" / name.format(block_folder(RUN).name)).open("r+b") as stream:
        stream.truncate(1 << 30)
    refused("expected at most 32 MiB, got 1,024.0 MiB")


def bomb(file: Path, rows: int, columns: dict[str, Any]) -> None:
    """Rows that are all the same: a few bytes in a file."""
    cells = pa.table({name: [value] for name, value in columns.items()})
    table = cells.take(pa.array(np.zeros(min(rows, 10_000_000), np.int32)))
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(rows // len(table)):
            writer.write_table(table, row_group_size=len(table))


def test_a_table_that_unpacks_to_gigabytes(block: Path) -> None:
    """1.5 GiB in less than 1 MB are refused from their footer, before a row is read."""
    bomb(block / "samples.parquet", 200_000_000, {"sample": 1})
    block = sign(block)
    assert (block / "samples.parquet").stat().st_size < 1_000_000
    refused("it would unpack to more than 1,526 MiB")


def test_words_that_repeat_cost_nothing(tmp_path: Path) -> None:
    """A megabyte of text in a million rows would be a terabyte."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * (1 << 20)])
    pq.write_table(pa.table({"attempt": words}), tmp_path / "t.parquet", store_schema=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = untrusted.Room().read(tmp_path / "t.parquet")
    assert len(table) == 1_000_000
    assert len({id(word) for word in table["attempt"]}) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_all_tables_of_a_run_share_one_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "FREE", 20 << 20)
    monkeypatch.setattr(untrusted, "RATIO", 1)
    bomb(tmp_path / "t.parquet", 1_000_000, {"sample": 1})
    room = untrusted.Room()
    assert len(room.read(tmp_path / "t.parquet")) == len(room.read(tmp_path / "t.parquet"))
    with pytest.raises(RunFolderError, match="it would unpack"):
        room.read(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    "column", [pa.array([[1]] * 2), pa.array([b"x"] * 2), pa.array([{"a": 1}] * 2)]
)
def test_columns_that_are_no_numbers_or_words(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet")
    with pytest.raises(RunFolderError, match="column a is of"):
        untrusted.Room().read(tmp_path / "t.parquet")


@pytest.mark.parametrize("spec", [{"arch": "evil.py:net"}, {"allow_code": True}])
def test_a_run_folder_runs_no_code(run: Run, spec: dict[str, object]) -> None:
    """Probes load the model that the folder names; what runs code waits for a word."""
    Path("evil.py").write_text("open('victim', 'w')\n")
    forge(MANIFEST, lambda manifest: manifest["request"].update(spec))
    with pytest.raises(UntrustedCodeError, match=r"names code that would run here \(.*allow-code"):
        flatguard.audit("run", checks="fast")
    assert not Path("victim").exists()
    assert flatguard.audit("run").findings  # reading needs no code


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"


def test_a_terminal_is_shown_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, warnings and errors of a run folder are printed with what they hide made visible."""
    make_run(Path("run"), SMALL)
    forge(block_folder(RUN) / "block.json", lambda facts: facts.update(warnings=[HOSTILE]))
    with pytest.raises(SystemExit):
        main(["audit", "run"])
    shown = capsys.readouterr()
    assert "warning: torchattacks:PGD: \\u001b]0;owned\\u0007\\u001b[2J\\u202e" in shown.out
    forge(MANIFEST, lambda manifest: manifest.update({HOSTILE: 1}))
    with pytest.raises(SystemExit, match="2"):
        main(["audit", "run"])
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "\\u001b[2J" in told.err
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.out + shown.err + told.err)
