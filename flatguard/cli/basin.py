"""`flatguard geometry basin`: which samples a run's attack leaves loss-change robust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatguard.cli.options import Json
from flatguard.errors import UsageError

if TYPE_CHECKING:
    from flatguard.checks.basins import Basins


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    epsilon: Annotated[
        float, typer.Option(help="The loss may rise by so much: ε of Definition 5.")
    ] = 0.01,
    delta: Annotated[
        str | None, typer.Option(help="The distance δ, such as 2/255; by default the run's radius.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print how wide the basins are, and which samples the attack leaves (δ, ε)-robust.

    A basin is the region around an image in which the loss barely rises. An image is (δ, ε)-robust
    if the loss rises by at most ε everywhere within δ. An attack refutes that and never proves it:
    "left robust" is the absence of a refutation. Only samples that are right when clean count.
    """
    from flatguard.checks.basins import basins_of
    from flatguard.geometry.budget import parse_eps
    from flatguard.runs.run import load_run

    if not 0 <= epsilon < float("inf"):
        raise UsageError(f"--epsilon: expected a number of at least 0, got {epsilon:g}")
    opened = load_run(run)
    opened.verify()
    try:
        radius = opened.request.budget().eps if delta is None else parse_eps(delta)
    except ValueError as error:
        raise UsageError(f"--delta: {str(error).removeprefix('eps: ')}") from error
    if radius is None:
        raise UsageError("--delta is needed: this run's attack has no radius")
    facts = _facts(basins_of(opened, epsilon), radius)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        _show(facts)


def _facts(found: Basins, delta: float) -> dict[str, Any]:
    from flatguard.checks.statistics import interval

    refuted, n = found.refuted(delta), len(found.table)
    robust = n - len(refuted)
    rho = found.width_and_sharpness
    return {
        "samples": n,
        "epsilon": found.epsilon,
        "delta": delta,
        "distance": found.distance,
        "left_robust": robust / n if n else None,
        "interval": list(interval(robust, n)),
        "refuted_samples": refuted,
        "epsilon_star": found.epsilon_star,
        "left_their_basin": int(found.table["left"].sum()),
        "width_quartiles": list(found.width_quartiles),
        "sharpness": found.measure.name,
        "rank_correlation": None if rho is None else rho.rho,
        "rank_correlation_interval": None if rho is None else list(rho.interval),
        "flatter_than_clean": list(found.flatter),
        "peak_at_flip": list(found.peak_at_flip),
    }


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console

    from flatguard.cli.terms import show_terms

    n, norm = facts["samples"], {"linf": "ℓ∞", "l2": "ℓ2"}[facts["distance"]]
    if not n:
        typer.echo(
            "not measured: no recorded call of the attack belongs to an image that the model "
            "classifies right when it is clean"
        )
        return
    low, high = facts["interval"]
    rows = [
        (
            f"left ({facts['delta']:.4g}, {facts['epsilon']:g})-robust",
            f"{facts['left_robust']:.1%} of {n} images (95% interval {low:.1%} to {high:.1%}): "
            f"within {facts['delta']:.4g} ({norm}) the attack saw no rise of their loss above "
            f"{facts['epsilon']:g}; that is no proof",
        ),
        ("all of them together", _over_the_set(facts["refuted_samples"])),
        (
            "left their basin",
            f"{facts['left_their_basin']} of {n} images: somewhere on the attack's path their loss "
            f"rose by more than {facts['epsilon']:g}",
        ),
        (
            "width of a basin",
            f"{', '.join(map(_width, facts['width_quartiles']))}: the distance ({norm}) at which "
            "the loss first did, in quartiles over the images",
        ),
        ("ε_*", _least_rise(facts["epsilon_star"])),
        (
            f"ρ of width and log {facts['sharpness']}",
            f"{_with_interval(facts)}; well below 0: images with a flat loss have wide basins",
        ),
        (
            "flatter than clean",
            "{} of {} adversarial examples: a flat loss does not make an answer right".format(
                *facts["flatter_than_clean"]
            ),
        ),
        (
            "peak at the boundary",
            "on {} of {} paths {} is largest within a step of the first wrong answer".format(
                *facts["peak_at_flip"], facts["sharpness"]
            ),
        ),
    ]
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        typer.echo(f"{name:<{width}}{value}")
    show_terms(Console(soft_wrap=True, highlight=False), *(name for name, _ in rows))


def _over_the_set(refuted: list[int]) -> str:
    """Definition 6: a set is robust if each of its samples is."""
    if not refuted:
        return "not refuted by this attack"
    return f"refuted, first at image {min(refuted)}"


def _width(value: float | None) -> str:
    return "never left" if value is None else f"{value:.4g}"


def _least_rise(value: float | None) -> str:
    if value is None:
        return "not measured: within the run's radius the attack saw no wrong answer"
    return f"{value:.4g}: the least rise of the loss with which the attack saw a wrong answer"


def _with_interval(facts: dict[str, Any]) -> str:
    if facts["rank_correlation"] is None:
        return "not measured"
    low, high = facts["rank_correlation_interval"]
    return f"{facts['rank_correlation']:.2f} (95% interval {low:.2f} to {high:.2f})"
