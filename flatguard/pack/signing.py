"""Ed25519 keys and signatures, by the library cryptography.

Keys are PEM files, as `openssl genpkey -algorithm ed25519` writes them. A signature is the 64 bytes
of RFC 8032, which `openssl pkeyutl -verify -rawin` checks, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flatguard.environment.requirements import needed
from flatguard.environment.system import quoted
from flatguard.errors import UsageError, check_readable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE_BYTES = 64
_LARGEST_KEY = 1 << 16
_MAKE = "openssl genpkey -algorithm ed25519 -out KEY.pem"


def load_private_key(file: Path, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """Read the key that signs.

    Args:
        file: in PEM.
        passphrase: is asked only if the key is encrypted.

    Raises:
        UsageError: the file is no such key, or the passphrase is wrong.
        EnvironmentProblem: cryptography is not installed.
    """
    with needed("cryptography", "pack", "--sign"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = _read(file)
    secret = None
    if b"ENCRYPTED" in pem:
        secret = passphrase().encode()
    elif b"PRIVATE KEY" not in pem or b"OPENSSH" in pem:
        raise UsageError(f"{file}: expected an Ed25519 private key in PEM; make one with: {_MAKE}")
    try:
        key = load_pem_private_key(pem, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "cannot be read; is the passphrase right?" if secret is not None else "is damaged"
        raise UsageError(f"{file}: the private key {why}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            f"{file}: expected an Ed25519 key, got {_kind(key)}; make one with: {_MAKE}"
        )
    return key


def load_public_key(file: Path) -> Ed25519PublicKey:
    """Read the key that verifies.

    Raises:
        UsageError: the file is no such key.
        EnvironmentProblem: cryptography is not installed.
    """
    with needed("cryptography", "pack", "--public-key"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = _read(file)
    if b"PRIVATE KEY" in pem:
        raise UsageError(
            f"{file}: expected a public key, got a private one; its public half: openssl pkey -in "
            f"{quoted(file)} -pubout"
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{file}: expected an Ed25519 public key in PEM, which begins with "
            "-----BEGIN PUBLIC KEY-----"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{file}: expected an Ed25519 key, got {_kind(key)}")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, as DER (SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def is_signed_by(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether the signature of this content was made with the key's private half."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file; expected a key in PEM")
    check_readable(file, UsageError)
    with file.open("rb") as stream:
        return stream.read(_LARGEST_KEY)


def _kind(key: object) -> str:
    """`RSA` for an RSA private or public key."""
    return type(key).__name__.strip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
