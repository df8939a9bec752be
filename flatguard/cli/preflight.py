"""`flatguard preflight`: what the model does on the clean images, without an attack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from flatguard.cli.options import MODEL_AND_DATA, Json, Quiet, takes
from flatguard.request import make_request

if TYPE_CHECKING:
    from flatguard.checks.preflight.judged import Preflight


@takes((*MODEL_AND_DATA, "norm", "eps"))
def command(*, given: dict[str, Any], as_json: Json = False, quiet: Quiet = False) -> None:
    """Look for a mistake in the set-up before an attack: a minute instead of hours.

    Classifies at most 200 of the clean images, and shows 32 of them several times. It compares the
    clean accuracy with chance and with RobustBench's published figure; names wrong labels and wrong
    preprocessing; and tells randomness, dependence on the batch and on earlier calls, writes into
    the input, changes of the model, outputs that are no logits, and missing gradients apart. Every
    `flatguard evaluate` begins with it.

    Exit code 0: nothing stands against a verdict, though warnings may be listed; 3: there is no
    robustness to judge, or the accuracy is explained by a mistake.
    """
    from flatguard.checks.preflight.entry import NO_ATTACK, load
    from flatguard.checks.preflight.judged import preflight
    from flatguard.cli.progress import watching

    request = make_request(**given, attack=NO_ATTACK)
    with watching(quiet, as_json) as watcher:
        loaded = load(request)
        watcher.log(
            f"{loaded.target.name} ({loaded.target.source}); {loaded.count} of "
            f"{len(loaded.dataset)} images from {loaded.dataset.name}; "
            f"{loaded.target.num_classes} classes"
        )
        watcher.stage("preflight", 1)
        found = preflight(loaded)
    if as_json:
        typer.echo(json.dumps(_as_dict(found), allow_nan=False))
    else:
        _show(found)
    raise typer.Exit(found.exit_code)


def _as_dict(found: Preflight) -> dict[str, Any]:
    return {
        "findings": [finding.model_dump() for finding in found.findings],
        "notes": found.notes,
        "nothing_to_judge": found.nothing_to_judge,
        "facts": found.facts.model_dump(mode="json"),
        "exit_code": found.exit_code,
    }


def _show(found: Preflight) -> None:
    from flatguard.cli.answer import show_findings

    show_findings(found.findings)
    for note in found.notes:
        typer.echo(f"note: {note}")
    for finding in found.findings:
        if finding.next is not None and finding.status != "pass":
            typer.echo(f"next: {finding.next}")
    facts = found.facts
    price = f"{facts.forwards:,} forward and {facts.backwards:,} backward passes of one image"
    typer.echo(f"\n{found.nothing_to_judge or 'nothing stands against an attack'} ({price})")
