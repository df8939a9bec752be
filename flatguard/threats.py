"""Several threats at once: a run for each, and a sample has to withstand all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flatguard.environment.caller import own_process
from flatguard.environment.system import quoted
from flatguard.errors import UsageError
from flatguard.evaluation import evaluate
from flatguard.execution.notebook_progress import default_progress
from flatguard.execution.progress import ProgressReporter
from flatguard.reporting.union import Union, unite
from flatguard.request import make_request
from flatguard.runs.naming import default_folder
from flatguard.targets.target import Target


@dataclass(frozen=True)
class Threat:
    """A norm, a radius, and the attack that searches within it."""

    norm: str
    eps: str | None
    attack: str

    @property
    def folder(self) -> str:
        """`Linf-8-255`, the folder of its run."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(filter(None, (self.norm, self.eps))))


def threats_of(norm: str, eps: str | None, attack: str) -> list[Threat]:
    """`Linf,L2` with `8/255,0.5` as two threats, by one attack or by one for each.

    Raises:
        UsageError: not as many radii as norms, or neither one attack nor as many.
    """
    norms = [each.strip() for each in norm.split(",")]
    radii = [each.strip() for each in (eps or "").split(",")]
    attacks = [each.strip() for each in attack.split(",")]
    if len(radii) != len(norms):
        raise UsageError(
            f"--eps: expected a radius for each norm of {norm}, such as 8/255,0.5, got {eps!r}"
        )
    if len(attacks) not in (1, len(norms)):
        raise UsageError(
            f"--attack: expected one attack, or one for each norm of {norm}, got {len(attacks)}"
        )
    attacks = attacks if len(attacks) > 1 else attacks * len(norms)
    found = [Threat(*each) for each in zip(norms, radii, attacks, strict=True)]
    twice = next((one for one in found if [f.folder for f in found].count(one.folder) > 1), None)
    if twice is not None:
        raise UsageError(f"--norm, --eps: {twice.norm} within {twice.eps} is there twice")
    return found


@own_process()
def evaluate_union(
    model: str | nn.Module | Target,
    threats: Sequence[Threat],
    *,
    data: Any = None,
    out: str | Path | None = None,
    progress: ProgressReporter | None = None,
    **options: Any,
) -> tuple[Union, Path]:
    """Evaluate a model under each threat, one run each, and judge their union.

    Args:
        model: as for `evaluate`, like `data` and all further options.
        threats: two or more; `threats_of("Linf,L2", "8/255,0.5", "apgd-ce")` makes them.
        out: a new folder, in which each threat has its run folder; None names one in `reports/`.
        progress: receives progress updates; None shows a bar in a notebook, else nothing.
        **options: limits such as `max_forwards` hold for each run.

    Returns:
        The union's verdict, and the folder that holds it in `union.json`, `union.html` and
        `union.csv`.

    Raises:
        UsageError: a threat is wrong, or the folder is not new; no threat is evaluated then.
        FlatguardError: as `evaluate`.
    """
    progress = progress or default_progress()
    if len(threats) < 2:
        raise UsageError(f"a union needs two threats or more, got {len(threats)}")
    known = {name: options[name] for name in ("attack_args", "n_examples") if name in options}
    named = model if isinstance(model, str) else type(model).__name__
    for one in threats:  # a mistake in the last one is found before the first one is attacked
        first = make_request(model=named, attack=one.attack, norm=one.norm, eps=one.eps, **known)
    folder = _new_folder(out if out is not None else default_folder(first))
    runs = []
    for number, one in enumerate(threats, start=1):
        progress.log(f"threat {number} of {len(threats)}: {one.norm} within {one.eps}")
        runs.append(
            evaluate(
                model, one.attack, data=data, out=folder / one.folder, norm=one.norm, eps=one.eps,
                progress=progress, **options,
            )
        )  # fmt: skip
    return unite(runs, folder), folder


def _new_folder(out: str | Path) -> Path:
    if "://" in str(out):
        raise UsageError(
            f"--out {out}: the runs of a union are kept in a local folder; evaluate each norm by "
            "itself, and unite their folders with flatguard union"
        )
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is not empty. Runs in it that are complete are united by flatguard union "
            f"{quoted(folder)}/*; or name a new folder with --out"
        )
    return folder
