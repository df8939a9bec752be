"""The files of a report: written from the folder alone, all or none."""

import shutil
from pathlib import Path

import pytest

from flatguard.errors import RunFolderError
from flatguard.reporting.report import report_files, write_report
from flatguard.runs.layout import committed
from flatguard.runs.run import Run, load_run


def test_it_is_drawn_again_from_the_folder_alone(fresh: Run, tmp_path: Path) -> None:
    before = report_files(fresh).html.read_bytes()
    moved = tmp_path / "elsewhere" / "fresh"
    shutil.move(fresh.path, moved.parent / "fresh")
    for file in moved.glob("report.*"):
        file.unlink()
    assert write_report(load_run(moved)).html.read_bytes() == before


def test_a_damaged_run_is_refused_and_its_old_report_stays(fresh: Run) -> None:
    old = report_files(fresh).html.read_bytes()
    file = committed(fresh.path)[1] / "clean.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"clean\.safetensors is damaged"):
        write_report(load_run(fresh.path))
    assert report_files(fresh).html.read_bytes() == old
