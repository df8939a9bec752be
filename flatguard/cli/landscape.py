"""`flatguard geometry landscape`: the loss of a run's model along directions of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flatguard.cli.options import Json, Quiet, takes
from flatguard.errors import UsageError


@takes(("allow_code",))
def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    directions: Annotated[int, typer.Option(min=1, help="Random ones.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Of PGD, at every point.")] = 7,
    restarts: Annotated[int, typer.Option(min=1, help="Of PGD, at every point.")] = 1,
    *,
    given: dict[str, Any],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Robust and clean loss where a run's model moves along random directions of its weights.

    Each filter of a direction has the size of the model's filter, as in Figure 4 of Stutz et al.
    (2021). The attack is run anew at each of ten points a direction. The losses are kept in the
    run's folder, and its report shows them in the Geometry section.
    """
    from flatguard.checks.context import CheckContext
    from flatguard.checks.weight_space.measure import add_landscape
    from flatguard.checks.weight_space.robust_loss import Ascent
    from flatguard.cli.progress import watching
    from flatguard.evaluation import audit
    from flatguard.execution.reopening import reopen
    from flatguard.geometry.ball import SEARCHED
    from flatguard.runs.check_evidence import load_probes, load_tables
    from flatguard.runs.run import load_run

    opened = load_run(run)
    opened.verify()
    budget = opened.request.budget()
    if not opened.complete:
        raise UsageError(f"{run} is incomplete; a landscape needs all of its blocks")
    if budget.eps is None or budget.norm not in SEARCHED:
        raise UsageError(f"robust losses are searched in {', '.join(SEARCHED)}, not {budget.norm}")
    if not given["allow_code"]:
        opened.request.refuse_code(str(run))
    with watching(quiet, as_json) as watcher:
        context = CheckContext(reopen(opened, check_data=True), opened, watcher)
        name = add_landscape(context, Ascent(budget.eps, budget.norm, steps, restarts), directions)
        audit(opened, progress=watcher)
    rows = _rows(load_tables(opened, load_probes(opened)[name])["landscape"])
    if as_json:
        typer.echo(json.dumps(rows))
        return
    typer.echo(
        "mean loss over the images where the weights are moved by t, in norms of each filter; the "
        "model itself is at t = 0\nrobust loss: under the attack, mean over the directions (lowest "
        "to highest); clean: without it"
    )
    for row in rows:
        typer.echo(
            f"t = {row['t']:5.2f}   robust loss {row['robust_loss']:8.3f} "
            f"({row['lowest']:.3f} to {row['highest']:.3f})   clean {row['clean_loss']:.3f}"
        )


def _rows(table: Any) -> list[dict[str, float]]:
    """The mean over directions at each t, and the lowest and highest direction."""
    means = table.groupby(["t", "direction"])[["robust_loss", "clean_loss"]].mean()
    return [
        {
            "t": float(t),
            "robust_loss": float(part["robust_loss"].mean()),
            "lowest": float(part["robust_loss"].min()),
            "highest": float(part["robust_loss"].max()),
            "clean_loss": float(part["clean_loss"].mean()),
        }
        for t, part in means.groupby(level="t")
    ]
