"""One pair: its label, flatguard's verdict, and the other judges on the same run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import flatguard
from benchmarks.masking_zoo import kept_evidence
from benchmarks.masking_zoo.judges import Audited, ask_all
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import find
from benchmarks.masking_zoo.reference import Label, interval, kind_of, label
from flatguard.checks.evidence import Evidence

NO_VERDICT = "no verdict"
ATTACK = "torchattacks:PGD"


@dataclass(frozen=True)
class Result:
    """What is printed of one pair.

    Attributes:
        group: the kind of defence, as far as it is known; what is held out together.
        checks: flatguard's level.
        images: how many flatguard judged.
        label: measured by the reference attack, on all of the pair's images.
        mechanism_expected: what would explain it; for scoring only.
        robust_accuracy: as the audited attack reports it.
        verdict, mechanism, corrected, forwards: flatguard's.
        problem: why flatguard gave none.
        seconds: of flatguard's evaluation and verdict.
        findings: of flatguard's checks, in words.
        peers: the other judges' answers and prices, by their names; see `judges.ask_all`.
    """

    pair: str
    network: str
    family: str
    group: str
    checks: str
    images: int
    label: dict[str, Any]
    mechanism_expected: tuple[str, ...]
    robust_accuracy: float | None
    verdict: str
    mechanism: str | None
    corrected: float | None
    forwards: int | None
    problem: str | None
    seconds: float
    findings: dict[str, str]
    peers: dict[str, dict[str, Any]]

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


@dataclass(frozen=True)
class Asked:
    """How a pair is run.

    Attributes:
        checks: flatguard's level.
        images: judge the first ones only; the label is of all.
        known: earlier results by pair; their labels and the other judges' answers are taken.
    """

    checks: str = "fast"
    images: int | None = None
    known: Mapping[str, Result] = field(default_factory=dict)


def run_by_name(name: str, fresh: bool, asked: Asked) -> Result:
    """What a worker process is asked for."""
    return run_pair(find(name), fresh, asked)


def run_pair(pair: Pair, fresh: bool = False, asked: Asked | None = None) -> Result:
    """Label the pair, let flatguard judge it, and ask the other judges.

    Args:
        pair: the pair.
        fresh: measure its label anew.
        asked: how; None is `fast`, on all images.
    """
    asked = asked or Asked()
    checks, images, known = asked.checks, asked.images, asked.known.get(pair.name)
    labelled = Label(**_of_measuring(known.label)) if known is not None else label(pair, fresh)
    if images is not None:
        pair = replace(pair, n=min(pair.n, images))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run, problem = judged(pair, checks, Path(folder) / "run")
        seconds = time.perf_counter() - began
        summary: dict[str, Any] = run.summary if run is not None else {}
        if run is not None:
            kept_evidence.keep(Evidence.of(run), kept_evidence.folder_of(pair.name, checks))
            if known is None and (problem is not None or pair.random):
                labelled = by_its_number(labelled, summary["robust_accuracy"])
        peers = (
            known.peers
            if known is not None
            else ask_all(lambda: Audited(pair.build(), *pair.data(), pair.eps, run))
        )
    return Result(
        pair=pair.name,
        network=pair.network,
        family=pair.family,
        group=group_of(pair),
        checks=checks,
        images=pair.n,
        label=as_dict(labelled),
        mechanism_expected=pair.mechanism,
        robust_accuracy=summary.get("robust_accuracy"),
        verdict=summary.get("verdict") or NO_VERDICT,
        mechanism=summary.get("mechanism"),
        corrected=summary.get("corrected_robust_accuracy"),
        forwards=summary.get("check_forwards"),
        problem=problem,
        seconds=round(seconds, 1),
        findings={
            f["check"]: f"{f['status']}: {f['summary']}" for f in summary.get("findings", ())
        },
        peers=peers,
    )


def group_of(pair: Pair) -> str:
    """What is held out together: the literature's kind, or the family.

    Honest pairs of no kind are held out by their network.
    """
    kind = getattr(pair, "kind", "") or pair.family
    return f"honest {pair.network}" if kind == "honest" else str(kind)


def by_its_number(labelled: Label, survived: float) -> Label:
    """The label of the number that was judged, where it is not PGD-20's.

    It is Square's where PGD raises. A randomised pair's is one draw's, which a whole batch may
    share; the label's own count is a majority of draws. The reference attacked every clean sample.
    """
    audited = max(round(survived * labelled.n), labelled.left)
    low, high = interval(audited - labelled.left, labelled.n)
    return replace(labelled, audited=audited, low=low, high=high, kind=kind_of(low, high))


def judged(
    pair: Pair, checks: str, out: Path, until_decided: bool = False
) -> tuple[Any | None, str | None]:
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
                until_decided=until_decided,
            )
            return run, problem
        except Exception as error:  # whatever it raises, the pair is shown
            problem = f"{type(error).__name__}: {error}".replace(str(out), "RUN")
    return None, problem


def as_dict(labelled: Label) -> dict[str, Any]:
    """For JSON, with the overestimate."""
    return asdict(labelled) | {"overestimate": labelled.overestimate}


def _of_measuring(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What `as_dict` was given."""
    return {name: value for name, value in stored.items() if name != "overestimate"}
