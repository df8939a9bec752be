"""What SECURITY.md says is what the code does, and every dependency was reviewed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from flatguard.data import array_files, values
from flatguard.environment import pickles
from flatguard.gate import positions
from flatguard.runs import untrusted

ROOT = Path(__file__).resolve().parents[1]


def test_the_bounds_are_as_promised() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    for said in (
        f"{untrusted.LARGEST_TEXT >> 20} MiB each",
        f"{untrusted.FREE >> 30} GiB unpacked, and {untrusted.RATIO} times their size",
        f"{untrusted.LARGEST_FILE >> 30} GiB on disk",
        f"{positions.LARGEST >> 10} KiB, {positions.DEEPEST} levels",
        f"tuples of {pickles.DEEPEST} levels",
        f"{array_files.FREE >> 30} GiB unpacked, and {array_files.RATIO} times the size",
        f"{values.LARGEST_IMAGE // 1_000_000} million values",
    ):
        assert said in text


def test_every_dependency_was_reviewed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for name in set(extras) - {"dev"}:
        wanted += extras[name]
    names = {re.match(r"[A-Za-z0-9-]+", one)[0] for one in wanted}  # type: ignore[index]
    review = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    reviewed = set(re.findall(r"[A-Za-z0-9-]+", review))
    assert names - {"flatguard"} - reviewed == set()


def test_no_source_reads_a_pickle() -> None:
    """But torch's reader of weights, and `--allow-code`."""
    sources = {file: file.read_text("utf-8") for file in (ROOT / "flatguard").rglob("*.py")}
    unsafe = r"pickle\.loads?\(|allow_pickle=True|weights_only=False|yaml\.(unsafe_)?load\("
    assert [file for file, text in sources.items() if re.search(unsafe, text)] == []
    loads = [file.name for file, text in sources.items() if re.search(r"torch\.load\(", text)]
    assert sorted(loads) == ["array_files.py", "checkpoint.py", "demo.py", "example_file.py"]


def test_an_audit_without_a_reachable_service() -> None:
    """It does not pass; CI is told."""
    stand_in = "import sys; sys.modules['pip_audit'] = None; sys.argv = sys.argv[1:]; "
    run = f"{stand_in}import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    script = str(ROOT / ".ci" / "audit.py")
    for flags, code in (([], 3), (["--report"], 0)):
        done = subprocess.run(
            [sys.executable, "-S", "-c", run, script, *flags],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert done.stdout.startswith("NOT AUDITED: no advisory service answers")
