"""`flatguard verify-pack`: is an audit pack as it was written, and who signed it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An audit pack.")],
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Check its signature with this Ed25519 public key."),
    ] = None,
) -> None:
    """Compare an audit pack with its manifest of hashes, and its signature with a key.

    Exit code 0: the pack is as it was written; 1: a file is missing, extra or changed, or the
    signature is not by this key; 2: the folder is no audit pack, or the key is none.
    """
    from flatguard.pack.verification import verify_pack

    found = verify_pack(folder, public_key)
    for problem in found.problems:
        typer.echo(problem)
    if found.problems or found.manifest is None:
        typer.echo(f"{folder} is not as it was written")
        raise typer.Exit(1)
    manifest = found.manifest
    typer.echo(f"{folder}: {len(manifest.files)} files are as they were written")
    if manifest.key is None:
        typer.echo("not signed: nothing tells who wrote it")
    elif public_key is None:
        typer.echo(f"signed by key {manifest.key}, not checked: give --public-key KEY")
    else:
        typer.echo(f"signed by key {manifest.key}: checked with {public_key}")
