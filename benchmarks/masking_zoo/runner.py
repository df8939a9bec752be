"""One pair: its label, flatguard's verdict, and the two baselines on the same run."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import flatguard
from benchmarks.masking_zoo import baselines, ioaf
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import find
from benchmarks.masking_zoo.reference import Label, interval, kind_of, label

NO_VERDICT = "no verdict"
ATTACK = "torchattacks:PGD"


@dataclass(frozen=True)
class Result:
    """What is printed of one pair.

    Attributes:
        label: measured by the reference attack.
        mechanism_expected: what would explain it; for scoring only.
        robust_accuracy: as the audited attack reports it.
        verdict, mechanism, corrected, forwards: flatguard's.
        problem: why flatguard gave none.
        flags: AutoAttack's.
        indicators: IoAF's shares; `raised` names those above their threshold.
        seconds: of flatguard's evaluation and verdict.
        findings: of flatguard's checks, in words.
    """

    pair: str
    network: str
    family: str
    label: dict[str, Any]
    mechanism_expected: tuple[str, ...]
    robust_accuracy: float | None
    verdict: str
    mechanism: str | None
    corrected: float | None
    forwards: int | None
    problem: str | None
    flags: list[str]
    indicators: dict[str, float]
    raised: list[str]
    seconds: float
    findings: dict[str, str]

    @property
    def kind(self) -> str:
        """`masked`, `honest` or `unscored`."""
        return str(self.label["kind"])


def label_by_name(name: str, fresh: bool) -> str:
    """A label alone, as a line."""
    found = label(find(name), fresh)
    return (
        f"{name}: n {found.n}, clean {found.clean}, PGD-20 {found.audited}, left {found.left}; "
        f"+{found.overestimate:.1%} [{found.low:.1%}, {found.high:.1%}] {found.kind}; "
        f"{found.fell_to} {found.error or ''} {found.seconds:.0f} s"
    )


def run_by_name(name: str, fresh: bool, checks: str) -> Result:
    """What a worker process is asked for."""
    return run_pair(find(name), fresh, checks)


def run_pair(pair: Pair, fresh: bool = False, checks: str = "fast") -> Result:
    """Label the pair, let flatguard judge it, and ask the baselines."""
    labelled = label(pair, fresh)
    model, (images, labels) = pair.build(), pair.data()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run, problem = judged(pair, checks, Path(folder) / "run")
        seconds = time.perf_counter() - began
        summary: dict[str, Any] = run.summary if run is not None else {}
        if run is not None and problem is not None:
            labelled = by_square(labelled, round(summary["robust_accuracy"] * pair.n))
        torch.manual_seed(0)
        found = ioaf.indicators(model, images, labels, pair.eps, run)
    return Result(
        pair=pair.name,
        network=pair.network,
        family=pair.family,
        label=as_dict(labelled),
        mechanism_expected=pair.mechanism,
        robust_accuracy=summary.get("robust_accuracy"),
        verdict=summary.get("verdict") or NO_VERDICT,
        mechanism=summary.get("mechanism"),
        corrected=summary.get("corrected_robust_accuracy"),
        forwards=summary.get("check_forwards"),
        problem=problem,
        flags=baselines.autoattack_flags(model, images, labels, pair.eps),
        indicators={name: round(value, 4) for name, value in vars(found).items()},
        raised=found.raised(),
        seconds=round(seconds, 1),
        findings={
            f["check"]: f"{f['status']}: {f['summary']}" for f in summary.get("findings", ())
        },
    )


def by_square(labelled: Label, survived: int) -> Label:
    """The label of a pair whose audited attack raises: by how much Square's number is too high.

    The reference attacked every clean sample; what it left counts against Square's count.
    """
    audited = max(survived, labelled.left)
    low, high = interval(audited - labelled.left, labelled.n)
    return replace(labelled, audited=audited, low=low, high=high, kind=kind_of(low, high))


def judged(pair: Pair, checks: str, out: Path) -> tuple[Any | None, str | None]:
    """flatguard's run on the pair, or why there is none."""
    steps = {"steps": 20, "alpha": pair.eps / 4, "random_start": False}
    problem = None
    # An attack that needs a gradient raises where there is none; people then use Square.
    for number, (attack, args) in enumerate([(ATTACK, steps), ("square", {"n_queries": 100})]):
        try:
            run = flatguard.evaluate(
                pair.build(),
                attack,
                data=pair.data(),
                norm="Linf",
                eps=pair.eps,
                attack_args=args,
                n_examples=pair.n,
                batch_size=min(pair.n, 100),
                out=out / str(number),
                checks=checks,
            )
            return run, problem
        except Exception as error:  # whatever it raises, the pair is shown
            problem = f"{type(error).__name__}: {error}"
    return None, problem


def as_dict(labelled: Label) -> dict[str, Any]:
    """For JSON, with the overestimate."""
    return asdict(labelled) | {"overestimate": labelled.overestimate}
