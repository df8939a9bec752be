"""The manifest of an audit pack: the SHA-256 of each file, and the key that signed it.

PACK/
  summary.html summary.pdf     one page for somebody who decides
  report.html report.pdf report.json
  controls.html controls.pdf   findings by items of laws and standards
  bom.cdx.json                 CycloneDX ML-BOM
  pack-manifest.json           the files above by hash; sealed
  pack-manifest.sig            Ed25519 signature of its bytes, if signed
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flatguard.runs.facts import FileName, Number

MANIFEST, SIGNATURE = "pack-manifest.json", "pack-manifest.sig"
PACK_FORMAT = 1
"""Of the audit pack; newer formats are refused."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PackManifest(BaseModel):
    """The files of a pack, which all lie directly in its folder.

    Attributes:
        flatguard: the version that wrote the pack.
        run: the name of the run's folder.
        identity: of the run, as its own manifest has it.
        created: when the run began; the pack itself bears no time, so that it can be made again.
        key: SHA-256 of the public key that belongs to the signature; None if it is not signed.
        files: SHA-256 of each file but the manifest and the signature, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Number = PACK_FORMAT
    flatguard: str
    run: str
    identity: str
    created: str
    key: Sha256 | None
    files: dict[FileName, Sha256]
