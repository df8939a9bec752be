"""Audit packs as a user writes them: pages printed by the browser, the manifest, the exit codes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from support.packs import key_pair
from support.reports import HOSTILE, SMALL, judged

from benchmarks.synthetic import Names
from flatguard.pack.manifest import MANIFEST, SIGNATURE
from flatguard.pack.verification import verify_pack
from flatguard.runs.run import Run

FILES = {
    "summary.html", "summary.pdf", "report.html", "report.pdf", "report.json", "controls.html",
    "controls.pdf", "bom.cdx.json",
}  # fmt: skip
LONG = Names(model="a model with a long name " * 40, data="data of a long name " * 40)


def typed(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the test's browser holds this one's event loop."""
    command = [sys.executable, "-m", "flatguard", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}
    )


def pages_of(pdf: Path) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))


def drawn(pdf: Path) -> bytes:
    """What is drawn, unpacked."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf.read_bytes(), re.DOTALL):
        try:
            found.append(zlib.decompress(stream))
        except zlib.error:  # an image or a font
            continue
    return b"\n".join(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, browser: object) -> Run:
    return judged(tmp_path_factory.mktemp("packs") / "run", SMALL)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "new" / "pack"
    done = typed("report", run.path, "--pack", folder)
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    return folder


def test_a_pack_has_its_files_and_nothing_is_left_beside_it(pack: Path) -> None:
    assert {file.name for file in pack.iterdir()} == {*FILES, MANIFEST}
    assert [file.name for file in pack.parent.iterdir()] == ["pack"]
    assert [file.name for file in pack.parent.parent.iterdir()] == ["new"]
    assert verify_pack(pack).problems == ()


@pytest.mark.parametrize("name", ["summary", "report", "controls"])
def test_a_pdf_is_tagged_and_has_an_outline(pack: Path, name: str) -> None:
    content = (pack / f"{name}.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert re.search(rb"/MarkInfo\s*<<[^>]*/Marked true", content)
    assert b"/StructTreeRoot" in content
    assert b"/Outlines" in content
    assert b"/Lang (en)" in content


def test_figures_are_vectors(pack: Path) -> None:
    """The summary's figure is drawn, and it has no image at all."""
    assert b"/Subtype /Image" not in (pack / "summary.pdf").read_bytes()
    curves = re.findall(rb" (?:l|c)\n", drawn(pack / "report.pdf"))
    assert len(curves) > 200


def test_the_summary_is_one_page(pack: Path, tmp_path: Path) -> None:
    assert pages_of(pack / "summary.pdf") == 1
    assert 4 <= pages_of(pack / "report.pdf") <= 40
    for name, names in (("long", LONG), ("hostile", HOSTILE)):
        run = judged(tmp_path / name, names=names)
        assert typed("report", run.path, "--pack", tmp_path / f"{name}-pack").returncode == 0
        assert pages_of(tmp_path / f"{name}-pack" / "summary.pdf") == 1


def test_the_same_run_gives_the_same_bytes_but_for_the_pdfs(
    run: Run, pack: Path, tmp_path: Path
) -> None:
    private, public = key_pair(tmp_path, "mine")
    again = tmp_path / "again"
    done = typed("report", run.path, "--pack", again, "--sign", private)
    assert done.returncode == 0, done.stderr
    for name in FILES:
        if not name.endswith(".pdf"):
            assert (again / name).read_bytes() == (pack / name).read_bytes()
    assert (again / SIGNATURE).is_file()
    assert verify_pack(again, public).problems == ()


def test_the_commands_of_the_guide_work(run: Run, tmp_path: Path) -> None:
    """All but the installation, and the run itself, which is there already."""
    if shutil.which("openssl") is None:
        pytest.skip("the guide makes its key with openssl")
    page = Path(__file__).parents[2] / "docs" / "how-to" / "audit-pack.md"
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    shutil.copytree(run.path, tmp_path / "RUN")
    typed_lines = [line for line in lines if line.startswith(("flatguard report", "openssl"))]
    checks = [line for line in lines if line.startswith("flatguard verify-pack")]
    assert (len(lines), len(typed_lines), len(checks)) == (10, 5, 2)
    for line in lines:
        program, *arguments = shlex.split(line)
        if program == "openssl":
            assert subprocess.run([program, *arguments], capture_output=True).returncode == 0, line
        elif arguments[0] in ("report", "verify-pack"):
            assert typed(*arguments).returncode == 0, line


def test_without_a_browser_nothing_is_written(run: Run, tmp_path: Path) -> None:
    """The browsers that Playwright finds by itself are looked for in an empty folder."""
    if any(Path(place).exists() for place in ("/opt/google/chrome", "/opt/microsoft/msedge")):
        pytest.skip("a browser is installed outside the path")
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    done = typed("report", run.path, "--pack", "pack", PATH=empty, PLAYWRIGHT_BROWSERS_PATH=empty)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "a PDF needs Chromium; no Chromium is installed; install one with: " in line
    assert line.endswith("python -m playwright install chromium")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_browser_that_does_not_start_is_named(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "chromium").write_text("#!/bin/sh\nexit 1\n")
    (folder / "chromium").chmod(0o755)
    where = {"PATH": f"{folder}:/usr/bin:/bin", "PLAYWRIGHT_BROWSERS_PATH": str(folder)}
    done = typed("report", run.path, "--pack", "pack", **where)
    if Path("/opt/google/chrome").exists():
        pytest.skip("another browser is installed outside the path")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"{folder / 'chromium'} does not start" in line
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.parametrize("name", ["summary", "controls"])
def test_axe_finds_nothing_serious(browser: object, pack: Path, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(offline=True, bypass_csp=True)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto((pack / f"{name}.html").as_uri())
    found = axe.Axe().run(page).response["violations"]
    context.close()
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
