"""Checks an audit pack without a network: every file by its hash, and the signature by a key.

A pack may come from anybody. Only plain files are opened, and only those directly in its folder.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flatguard.environment.system import is_link
from flatguard.errors import RunFolderError, UsageError, one_line, visible
from flatguard.pack.manifest import MANIFEST, PACK_FORMAT, SIGNATURE, PackManifest
from flatguard.pack.signing import SIGNATURE_BYTES, fingerprint, is_signed_by, load_public_key
from flatguard.runs.checksums import sha256
from flatguard.runs.json_files import read_sealed, reading
from flatguard.runs.untrusted import read_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True)
class PackCheck:
    """The result of a check.

    Attributes:
        manifest: None if it is damaged.
        problems: one line each, with the name of the file; none if the pack is as it was written.
    """

    manifest: PackManifest | None
    problems: tuple[str, ...]


def verify_pack(folder: Path, public_key: Path | None = None) -> PackCheck:
    """Compare the files of a pack with its manifest, and its signature with a key.

    Args:
        folder: of the pack.
        public_key: in PEM; None does not check the signature.

    Raises:
        UsageError: the folder is no audit pack or has a newer format, or the key is none.
        EnvironmentProblem: cryptography is needed for the key and not installed.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no audit pack: expected a folder")
    present = {file.name: _kind(file) for file in folder.iterdir()}
    if MANIFEST not in present:
        raise UsageError(f"{folder} is no audit pack: it has no {MANIFEST}")
    key = None if public_key is None else load_public_key(public_key)
    if present[MANIFEST] is not None:
        return PackCheck(None, (f"changed: {MANIFEST} is {present[MANIFEST]}",))
    try:
        manifest = _read_manifest(folder)
    except RunFolderError as error:
        return PackCheck(None, (f"changed: {MANIFEST}: {error}",))
    problems = _compare(folder, manifest, present)
    if key is not None and manifest.key is None:
        problems.append(f"not signed: {MANIFEST} names no key, so nothing tells who wrote the pack")
    elif key is not None and present.get(SIGNATURE, "absent") is None:
        problems += _check_signature(folder, manifest, key)
    return PackCheck(manifest, tuple(problems))


def _kind(file: Path) -> str | None:
    """What a name of the folder is, if it is no plain file."""
    found = file.lstat()
    if is_link(found):
        return "a link"
    return None if stat.S_ISREG(found.st_mode) else "no plain file"


def _read_manifest(folder: Path) -> PackManifest:
    file = folder / MANIFEST
    with reading(file):
        text = read_text(file)
        content = json.loads(text)
        found = content.get("format_version")
    if isinstance(found, int) and found > PACK_FORMAT:
        raise UsageError(
            f"{folder} has format {found}, this flatguard reads format {PACK_FORMAT} of audit "
            "packs; upgrade flatguard"
        )
    manifest = read_sealed(PackManifest, file)
    if json.dumps(content, indent=2) + "\n" != text:  # the seal covers values, not white space
        raise RunFolderError("its white space differs from what flatguard writes")
    return manifest


def _compare(folder: Path, manifest: PackManifest, present: dict[str, str | None]) -> list[str]:
    """Name every file that is missing, is there and should not be, or has other bytes."""
    expected = {*manifest.files, MANIFEST, *([SIGNATURE] if manifest.key else [])}
    problems = [f"missing: {name}" for name in sorted(expected - present.keys())]
    problems += [f"extra: {visible(name)}" for name in sorted(present.keys() - expected)]
    for name in sorted(expected & present.keys()):
        if present[name] is not None:
            problems.append(f"changed: {name} is {present[name]}")
        elif name in manifest.files:
            problems += _compare_file(folder / name, manifest.files[name])
    return problems


def _compare_file(file: Path, expected: str) -> list[str]:
    try:
        return [] if sha256(file) == expected else [f"changed: {file.name}"]
    except OSError as error:
        return [f"unreadable: {file.name}: {error.strerror or one_line(error)}"]


def _check_signature(folder: Path, manifest: PackManifest, key: Ed25519PublicKey) -> list[str]:
    given = fingerprint(key)
    if manifest.key != given:
        return [f"wrong key: {MANIFEST} names key {manifest.key}, and this is key {given}"]
    with (folder / SIGNATURE).open("rb") as stream:
        signature = stream.read(SIGNATURE_BYTES + 1)
    if is_signed_by(key, signature, (folder / MANIFEST).read_bytes()):
        return []
    return [
        f"changed: {SIGNATURE} does not sign {MANIFEST} with this key, so one of the two was "
        "changed"
    ]
