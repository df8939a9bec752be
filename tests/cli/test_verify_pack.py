"""`flatguard verify-pack` and `flatguard report --pack`, typed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Result
from support.hidden import MAIN, hidden
from support.packs import key_pair, sealed
from support.reports import judged

from flatguard.runs.run import Run

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return judged(tmp_path_factory.mktemp("packs") / "run")


def test_a_good_pack_is_0(cli: Cli, run: Run, tmp_path: Path) -> None:
    found = cli("verify-pack", sealed(tmp_path / "pack", run))
    assert (found.code, found.err) == (0, "")
    assert "3 files are as they were written" in found.out
    assert "not signed" in found.out


def test_a_signed_pack_names_its_key(cli: Cli, run: Run, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    pack = sealed(tmp_path / "pack", run, private)
    assert "not checked: give --public-key KEY" in cli("verify-pack", pack).out
    found = cli("verify-pack", pack, "--public-key", public)
    assert found.code == 0
    assert f"checked with {public}" in found.out


def test_a_bad_pack_is_1_and_each_file_is_a_line(cli: Cli, run: Run, tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path, "mine")
    _, another = key_pair(tmp_path, "another")
    pack = sealed(tmp_path / "pack", run, private)
    (pack / "report.html").write_text("<p>Report")
    (pack / "bom.cdx.json").unlink()
    (pack / "new").touch()
    found = cli("verify-pack", pack, "--public-key", another)
    assert (found.code, found.err) == (1, "")
    *lines, key, last = found.out.splitlines()
    assert lines == ["missing: bom.cdx.json", "extra: new", "changed: report.html"]
    assert key.startswith("wrong key: ")
    assert last == f"{pack} is not as it was written"


def test_what_is_no_pack_is_2(cli: Cli, run: Run, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        found = cli("verify-pack", place)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
        assert "is no audit pack" in found.err
    found = cli("verify-pack", sealed(tmp_path / "pack", run), "--public-key", tmp_path / "none")
    assert found.code == 2


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (["RUN", "RUN", "--pack", "pack"], "--pack is about one run: expected one RUN, got 2"),
        (["RUN", "--sign", "key.pem"], "--sign signs an audit pack: add --pack FOLDER"),
        (["RUN", "--pack", "here"], "here exists already; name another folder with --pack"),
        (["RUN", "--pack", "."], "exists already"),
        (["RUN", "--pack", "s3://bucket/pack"], "expected a folder on a disk, not an address"),
        (["RUN", "--pack", "pack", "--sign", "nowhere.pem"], "there is no such file"),
        (["nowhere", "--pack", "pack"], "is no run folder"),
        (["RUN", "--pack", "RUN/report.html/pack"], "cannot write"),
    ],
)
def test_a_pack_that_cannot_be_written_is_one_line(
    cli: Cli, run: Run, typed: list[str], why: str
) -> None:
    Path("here").touch()
    if "--sign" in typed and "--pack" in typed:
        pytest.importorskip("cryptography", reason="signatures need the extra `pack`")
    before = sorted(run.path.rglob("*"))
    found = cli("report", *(word.replace("RUN", str(run.path)) for word in typed))
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert why in found.err
    assert sorted(run.path.rglob("*")) == before
    assert [path.name for path in Path.cwd().iterdir()] == ["here"]


@pytest.mark.parametrize(("gone", "more"), [("playwright", []), ("cryptography", ["--sign", "k"])])
def test_an_absent_extra_is_one_line(run: Run, gone: str, more: list[str]) -> None:
    typed = ["flatguard", "report", str(run.path), "--pack", "pack", *more]
    done = hidden(gone, then=MAIN.format(typed=typed))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert f"{gone} is not installed; install it with: pip install 'flatguard[pack]'" in line
    assert list(Path.cwd().iterdir()) == []
