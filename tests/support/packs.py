"""Audit packs without PDFs, and keys, for tests of the manifest and the signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flatguard.pack.writing import seal
from flatguard.runs.run import Run

FILES = {"summary.html": "<p>summary", "report.html": "<p>report", "bom.cdx.json": "{}"}


def key_pair(folder: Path, name: str, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """An Ed25519 key and its public half, as openssl writes them."""
    pytest.importorskip("cryptography", reason="signatures need the extra `pack`")
    from cryptography.hazmat.primitives import serialization as as_
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    how: Any = as_.NoEncryption()
    if passphrase is not None:
        how = as_.BestAvailableEncryption(passphrase)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(as_.Encoding.PEM, as_.PrivateFormat.PKCS8, how))
    public.write_bytes(
        key.public_key().public_bytes(as_.Encoding.PEM, as_.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def sealed(folder: Path, run: Run, key: Path | None = None) -> Path:
    """A pack with a few files, written by the code that writes every pack."""
    from flatguard.pack.signing import load_private_key

    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content)
    seal(folder, run, None if key is None else load_private_key(key, lambda: ""))
    return folder
