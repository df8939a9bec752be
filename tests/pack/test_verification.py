"""A pack that was changed is found, with the name of each file."""

import json
import os
import sys
from pathlib import Path

import pytest
from support.packs import FILES, key_pair, sealed

from flatguard.errors import UsageError
from flatguard.pack.manifest import MANIFEST, SIGNATURE
from flatguard.pack.verification import verify_pack
from flatguard.runs.facts import digest
from flatguard.runs.run import Run

CHANGED = f"changed: {MANIFEST}"


def flipped(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def resealed(folder: Path, **changes: object) -> None:
    """What somebody does who knows the format and has no key."""
    content = json.loads((folder / MANIFEST).read_text())
    content.pop("seal")
    content |= changes
    (folder / MANIFEST).write_text(
        json.dumps({**content, "seal": digest(content)}, indent=2) + "\n"
    )


def test_a_pack_is_as_it_was_written(run: Run, tmp_path: Path) -> None:
    found = verify_pack(sealed(tmp_path / "pack", run))
    assert found.problems == ()
    assert found.manifest is not None
    assert set(found.manifest.files) == set(FILES)
    assert found.manifest.key is None


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("where", [0, 0.5, -2])
def test_a_flipped_bit_is_found(run: Run, tmp_path: Path, name: str, where: float) -> None:
    pack = sealed(tmp_path / "pack", run)
    size = (pack / name).stat().st_size
    flipped(pack / name, int(where * size) if 0 < where < 1 else int(where))
    (problem,) = verify_pack(pack).problems
    assert problem.startswith(f"changed: {name}")


@pytest.mark.parametrize(("old", "new"), [("\n", " "), ("\n}", "}"), (": ", ":\t")])
def test_other_white_space_is_a_change(run: Run, tmp_path: Path, old: str, new: str) -> None:
    file = sealed(tmp_path / "pack", run) / MANIFEST
    file.write_text(file.read_text().replace(old, new, 1))
    (problem,) = verify_pack(file.parent).problems
    assert problem.startswith(f"{CHANGED}: its white space differs")


def test_missing_and_extra_files_are_named(run: Run, tmp_path: Path) -> None:
    pack = sealed(tmp_path / "pack", run)
    (pack / "report.html").unlink()
    (pack / "notes\u202e.txt").touch()
    (pack / "folder").mkdir()
    assert verify_pack(pack).problems == (
        "missing: report.html", "extra: folder", "extra: notes\\u202e.txt",
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_and_pipes_are_not_followed(run: Run, tmp_path: Path) -> None:
    pack = sealed(tmp_path / "pack", run)
    outside = tmp_path / "outside"
    (pack / "report.html").rename(outside)  # the same bytes, elsewhere
    (pack / "report.html").symlink_to(outside)
    (pack / "summary.html").unlink()
    os.mkfifo(pack / "summary.html")
    assert verify_pack(pack).problems == (
        "changed: report.html is a link", "changed: summary.html is no plain file",
    )  # fmt: skip
    (pack / MANIFEST).rename(outside)
    (pack / MANIFEST).symlink_to(outside)
    assert verify_pack(pack).problems == (f"{CHANGED} is a link",)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "C:x", "a\n", ""]
)
def test_a_manifest_names_no_file_elsewhere(run: Run, tmp_path: Path, name: str) -> None:
    pack = sealed(tmp_path / "pack", run)
    (tmp_path / "outside").touch()
    resealed(pack, files={name: "0" * 64})
    (problem,) = verify_pack(pack).problems
    assert problem.startswith(CHANGED)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format_version": 1}', "\x00"])
def test_a_manifest_that_is_none_is_a_changed_one(run: Run, tmp_path: Path, text: str) -> None:
    pack = sealed(tmp_path / "pack", run)
    (pack / MANIFEST).write_text(text)
    (problem,) = verify_pack(pack).problems
    assert problem.startswith(CHANGED)
    assert "\n" not in problem


def test_what_is_no_pack_is_one_line(run: Run, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path, run.path):
        with pytest.raises(UsageError, match="is no audit pack"):
            verify_pack(folder)


def test_a_newer_format_is_refused(run: Run, tmp_path: Path) -> None:
    pack = sealed(tmp_path / "pack", run)
    resealed(pack, format_version=2)
    with pytest.raises(UsageError, match="format 2, this flatguard reads format 1"):
        verify_pack(pack)


def test_the_signature_is_checked_with_the_key(run: Run, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    pack = sealed(tmp_path / "pack", run, private)
    assert (pack / SIGNATURE).stat().st_size == 64
    assert verify_pack(pack).problems == ()
    assert verify_pack(pack, public).problems == ()


def test_another_key_is_named(run: Run, tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path, "mine")
    _, public = key_pair(tmp_path, "another")
    (problem,) = verify_pack(sealed(tmp_path / "pack", run, private), public).problems
    assert problem.startswith(f"wrong key: {MANIFEST} names key ")


def test_a_pack_that_somebody_sealed_again_is_not_signed(run: Run, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    pack = sealed(tmp_path / "pack", run, private)
    resealed(pack, run="another")
    assert verify_pack(pack).problems == ()  # nobody can tell without the key
    (problem,) = verify_pack(pack, public).problems
    assert problem.startswith(f"changed: {SIGNATURE} does not sign {MANIFEST}")


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\x00" * 65])
def test_a_changed_signature_is_named(run: Run, tmp_path: Path, content: bytes) -> None:
    private, public = key_pair(tmp_path, "mine")
    pack = sealed(tmp_path / "pack", run, private)
    (pack / SIGNATURE).write_bytes(content)
    (problem,) = verify_pack(pack, public).problems
    assert problem.startswith(f"changed: {SIGNATURE}")


def test_a_signature_that_was_taken_away_is_missed(run: Run, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    pack = sealed(tmp_path / "pack", run, private)
    (pack / SIGNATURE).unlink()
    for key in (None, public):
        assert verify_pack(pack, key).problems == (f"missing: {SIGNATURE}",)


def test_a_key_confirms_nothing_about_a_pack_without_a_signature(run: Run, tmp_path: Path) -> None:
    _, public = key_pair(tmp_path, "mine")
    (problem,) = verify_pack(sealed(tmp_path / "pack", run), public).problems
    assert problem.startswith("not signed: ")
