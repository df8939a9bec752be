"""Keys as people have them: only an Ed25519 key in PEM is taken, and all else is named."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.packs import key_pair

from flatguard.errors import UsageError

pytest.importorskip("cryptography", reason="signatures need the extra `pack`")

from cryptography.hazmat.primitives import serialization as as_
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from flatguard.pack.signing import (
    fingerprint,
    is_signed_by,
    load_private_key,
    load_public_key,
)


def nobody() -> str:
    raise AssertionError("no passphrase is needed")


def test_a_key_signs_and_its_public_half_verifies(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine")
    key = load_private_key(private, nobody)
    signature = key.sign(b"content")
    assert is_signed_by(load_public_key(public), signature, b"content")
    assert not is_signed_by(load_public_key(public), signature, b"Content")
    assert fingerprint(key.public_key()) == fingerprint(load_public_key(public))


def test_openssl_verifies_what_we_sign(tmp_path: Path) -> None:
    import shutil

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    private, public = key_pair(tmp_path, "mine")
    content, signature = tmp_path / "content", tmp_path / "signature"
    content.write_bytes(b"content")
    signature.write_bytes(load_private_key(private, nobody).sign(b"content"))
    typed = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in",
             str(content), "-sigfile", str(signature)]  # fmt: skip
    assert subprocess.run(typed, capture_output=True).returncode == 0
    content.write_bytes(b"Content")
    assert subprocess.run(typed, capture_output=True).returncode == 1


def test_a_passphrase_is_asked_once_and_only_if_needed(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "mine", b"secret")
    key = load_private_key(private, lambda: "secret")
    assert fingerprint(key.public_key()) == fingerprint(load_public_key(public))
    for wrong in ("", "Secret"):
        with pytest.raises(UsageError, match="is the passphrase right"):
            load_private_key(private, lambda wrong=wrong: wrong)  # type: ignore[misc]


def pem(key: Any, how: Any = as_.PrivateFormat.PKCS8) -> bytes:
    content: bytes = key.private_bytes(as_.Encoding.PEM, how, as_.NoEncryption())
    return content


def public_pem(key: Any) -> bytes:
    content: bytes = key.public_key().public_bytes(
        as_.Encoding.PEM, as_.PublicFormat.SubjectPublicKeyInfo
    )
    return content


RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
MINE = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pem(RSA), "expected an Ed25519 key, got RSA; make one with: openssl genpkey"),
        (pem(CURVE), "expected an Ed25519 key, got E"),
        (pem(MINE, as_.PrivateFormat.OpenSSH), "expected an Ed25519 private key in PEM"),
        (public_pem(MINE), "expected an Ed25519 private key in PEM"),
        (pem(MINE)[:60], "the private key is damaged"),
        (b"", "expected an Ed25519 private key in PEM"),
        (b"\x00\xff" * 100, "expected an Ed25519 private key in PEM"),
    ],
    ids=["rsa", "curve", "openssh", "public", "cut", "empty", "binary"],
)
def test_what_cannot_sign_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"key\.pem") as caught:
        load_private_key(file, nobody)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (public_pem(RSA), "expected an Ed25519 key, got RSA"),
        (pem(MINE), "expected a public key, got a private one"),
        (public_pem(MINE)[:40], "expected an Ed25519 public key in PEM"),
        (b"ssh-ed25519 AAAAC3Nza", "expected an Ed25519 public key in PEM"),
        (b"", "expected an Ed25519 public key in PEM"),
    ],
    ids=["rsa", "private", "cut", "ssh", "empty"],
)
def test_what_cannot_verify_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"key\.pem") as caught:
        load_public_key(file)
    assert why in str(caught.value)


def test_no_file_and_a_folder_are_no_key(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="there is no such file"):
            load_public_key(path)
