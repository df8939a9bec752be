"""Writes an audit pack: everything is built and printed before the folder appears."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flatguard.environment.system import replace, sync
from flatguard.errors import UsageError
from flatguard.integrations.cyclonedx import cyclonedx_bom
from flatguard.pack.manifest import MANIFEST, SIGNATURE, PackManifest
from flatguard.pack.signing import fingerprint, load_private_key
from flatguard.reporting.audit_summary import summary_page
from flatguard.reporting.controls import controls_page
from flatguard.reporting.json_report import report_document
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.printing import print_pages
from flatguard.reporting.report_page import report_page
from flatguard.reporting.sections import SECTIONS
from flatguard.reporting.sections.section import build_sections
from flatguard.runs.checksums import checksums
from flatguard.runs.json_files import write_sealed, write_text
from flatguard.runs.owners import ending, sweep_dead
from flatguard.runs.publishing import writing
from flatguard.runs.run import Run

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def write_pack(run: Run, folder: Path, key: Path | None, passphrase: Callable[[], str]) -> None:
    """Write the audit pack of a judged run; needs neither model nor data.

    All files but the PDFs are the same bytes for the same run and version of flatguard.

    Args:
        run: has a verdict.
        folder: where; there must be nothing yet.
        key: an Ed25519 private key in PEM that signs the pack; None leaves it unsigned.
        passphrase: is asked if the key is encrypted.

    Raises:
        UsageError: the folder exists, or the key is none.
        RunFolderError: the run is damaged or has no verdict, or the folder cannot be written.
        EnvironmentProblem: Playwright, Chromium or cryptography is not installed.
    """
    folder = folder.absolute()
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists already; name another folder with --pack")
    signer = None if key is None else load_private_key(key, passphrase)
    judged = JudgedRun.load(run)
    pages = _pages(judged)
    parent = next(place for place in folder.parents if place.exists())
    sweep_dead(parent, f".{folder.name}")
    begun = parent / f".{folder.name}{ending()}"
    try:
        with writing(str(folder)):
            begun.mkdir()
            for name, content in pages.items():
                write_text(begun / name, content)
            print_pages([begun / name for name in pages if name.endswith(".html")])
            seal(begun, run, signer)
            folder.parent.mkdir(parents=True, exist_ok=True)
            replace(begun, folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _pages(judged: JudgedRun) -> dict[str, str]:
    """Every file but those that are made of other files, by name."""
    sections = build_sections(judged, SECTIONS)
    return {
        "summary.html": summary_page(judged),
        "report.html": report_page(judged, sections),
        "controls.html": controls_page(judged),
        "report.json": report_document(judged, sections).model_dump_json(indent=1),
        "bom.cdx.json": cyclonedx_bom(judged),
    }


def seal(folder: Path, run: Run, signer: Ed25519PrivateKey | None) -> None:
    """Write the manifest of the files that a folder holds, sign its bytes, make all durable."""
    manifest = run.manifest
    write_sealed(
        folder / MANIFEST,
        PackManifest(
            flatguard=version("flatguard"),
            run=run.path.name,
            identity=manifest.identity,
            created=manifest.created,
            key=None if signer is None else fingerprint(signer.public_key()),
            files=checksums(folder),
        ),
    )
    if signer is not None:
        (folder / SIGNATURE).write_bytes(signer.sign((folder / MANIFEST).read_bytes()))
    for file in folder.iterdir():
        sync(file)
    sync(folder)
