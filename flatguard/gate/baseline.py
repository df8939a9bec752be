"""Baselines: the result of a run for each sample, and the test whether another run is worse.

The fall is (lost - won) / n: the samples that survived in the baseline and are fooled now, less
those for which it is the opposite. A run is worse if the fall is beyond the tolerance and, by the
exact McNemar test on the same samples, beyond chance. The comparison is inconclusive if only the
first holds, or if so few samples survived in the baseline that no fall could be beyond chance. A
run that is masked or overestimated by its own verdict fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from flatguard.checks.chance import LEVEL
from flatguard.checks.evidence import Evidence
from flatguard.checks.statistics import interval, mcnemar
from flatguard.checks.verdict import judge, tolerance_of
from flatguard.errors import RunFolderError, UsageError, did_you_mean
from flatguard.runs.check_evidence import PREFLIGHT, load_probes
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run, load_run

FORMAT_VERSION = 1
TOLERANCE = 0.02
FEWEST = 6
"""The exact test needs so many discordant pairs: five of five have p = 0.06, six of six 0.03."""

_PROTOCOL = ("attack", "norm", "eps", "n_examples", "batch_size", "seed")
Word = Literal["no worse", "worse", "not believed", "inconclusive"]
_EXIT_CODES: dict[Word, int] = {"no worse": 0, "worse": 1, "not believed": 1, "inconclusive": 3}
_BAD_VERDICTS: dict[str, Word] = {
    "masked": "not believed", "overestimated": "not believed", "inconclusive": "inconclusive",
}  # fmt: skip
"""Verdicts of runs that can neither be a baseline nor be compared with one."""


class Baseline(BaseModel):
    """The results that a later run is compared with; a file small enough to be committed.

    Attributes:
        name: of the model.
        created: when the run was made.
        flatguard: the version that made the run.
        weights_sha256: of the model.
        data_sha256: of the images and labels.
        protocol: the request's fields that runs must share, and the attack's arguments.
        checks: the probes of the run, on which "survived" depends.
        verdict: of the run.
        survived: for each sample `1` if it survived the attack and all checks, else `0`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    name: str
    created: str
    flatguard: str
    weights_sha256: str
    data_sha256: str
    protocol: dict[str, Any]
    checks: tuple[str, ...]
    verdict: str
    survived: Annotated[str, Field(pattern="^[01]+$")]

    @field_validator("protocol")
    @classmethod
    def _whole(cls, protocol: dict[str, Any]) -> dict[str, Any]:
        missing = {*_PROTOCOL, "attack_args"} - set(protocol)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
        return protocol

    @field_validator("survived")
    @classmethod
    def _as_many(cls, survived: str, info: ValidationInfo) -> str:
        if len(survived) != info.data.get("protocol", {}).get("n_examples"):
            raise ValueError("one mark for each sample is needed")
        return survived

    def robust(self) -> np.ndarray:
        """Which samples survived, `(n,)` bool."""
        return np.array([mark == "1" for mark in self.survived])


class Comparison(BaseModel):
    """A run compared with a baseline.

    Attributes:
        word: `no worse`, `worse`, `not believed` (the run is masked or overestimated itself) or
            `inconclusive`.
        sentence: the result in one sentence.
        before: the baseline's corrected robust accuracy.
        now: the run's.
        fall: before - now.
        lost: samples that survived before and are fooled now.
        won: the opposite.
        lost_interval: exact 95% interval of the share of lost samples.
        p: of the exact McNemar test.
        tolerance: the fall that is accepted.
        n: samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: Word
    sentence: str
    before: float
    now: float
    fall: float
    lost: int
    won: int
    lost_interval: tuple[float, float]
    p: float
    tolerance: float
    n: int

    @property
    def exit_code(self) -> int:
        """0 no worse, 1 worse or not believed, 3 inconclusive."""
        return _EXIT_CODES[self.word]


def baseline_of(run: Run) -> Baseline:
    """The baseline of a complete run.

    Raises:
        RunFolderError: it is damaged or incomplete.
    """
    run.verify()
    if not run.complete:
        raise RunFolderError(f"{run.path} is incomplete; a baseline needs every sample")
    evidence = Evidence.of(run)
    survived = evidence.standing - evidence.fooled
    args = {name: repr(value) for name, value in sorted(run.manifest.attack_args.items())}
    request = run.request.model_dump(mode="json", include=set(_PROTOCOL))
    return Baseline(
        name=run.manifest.target.name,
        created=run.manifest.created,
        flatguard=run.manifest.versions.get("flatguard", "unknown"),
        weights_sha256=run.manifest.target.weights_sha256,
        data_sha256=run.manifest.data.sha256,
        protocol={**request, "eps": run.request.budget().eps, "attack_args": args},
        checks=tuple(sorted(name for name in load_probes(run) if name != PREFLIGHT)),
        verdict=judge(evidence, tolerance_of(run)).verdict,
        survived="".join("1" if int(i) in survived else "0" for i in run.samples["sample"]),
    )


def save(run: Run, folder: Path, name: str | None, *, anyway: bool = False) -> Path:
    """Write a run's baseline to `folder/NAME.json`; an existing file is not replaced.

    Args:
        run: a complete run.
        folder: is made if it is missing.
        name: by default the model's.
        anyway: also save a run with a bad verdict.

    Raises:
        RunFolderError: the file exists or cannot be written.
        UsageError: the name is no file name, or the run has a bad verdict.
    """
    baseline = baseline_of(run)
    if baseline.verdict in _BAD_VERDICTS and not anyway:
        raise UsageError(
            f"{run.path} is {baseline.verdict}, so it cannot be a baseline; --anyway saves it"
        )
    chosen = baseline.name if name is None else name
    if not chosen.strip() or Path(chosen).name != chosen:
        raise UsageError(f"--name: expected a file's name without a folder, got {chosen!r}")
    file = folder / f"{chosen}.json"
    if file.exists():
        raise RunFolderError(f"{file} exists already; delete it, or give another --name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, baseline.model_dump_json(indent=2))
    except OSError as error:
        raise RunFolderError(f"cannot write {file}: {error.strerror}") from error
    return file


def load(path: Path) -> Baseline:
    """Load a baseline from its file or from a run folder.

    Raises:
        RunFolderError: the path is neither, or damaged, or of a newer format.
    """
    if path.is_dir():
        return baseline_of(load_run(path))
    if not path.is_file():
        others = [str(file) for file in path.parent.glob("*.json")]
        raise RunFolderError(f"no baseline {path}{did_you_mean(str(path), others, 1)}")
    baseline: Baseline = read_json(Baseline, path)
    if baseline.format_version > FORMAT_VERSION:
        raise RunFolderError(f"{path} is of a newer format; upgrade flatguard")
    return baseline


def compare(run: Run, before: Baseline, tolerance: float = TOLERANCE) -> Comparison:
    """Compare a run with a baseline.

    Raises:
        UsageError: they differ in data, protocol or checks.
        RunFolderError: the run is damaged or incomplete.
    """
    if not 0 <= tolerance < 1:
        raise UsageError(f"--tolerance: expected a share from 0 to below 1, got {tolerance:g}")
    now = baseline_of(run)
    _check_alike(now, before)
    was, still = before.robust(), now.robust()
    lost, won, n = int((was & ~still).sum()), int((~was & still).sum()), len(was)
    fall, p = (lost - won) / n, mcnemar(lost, won)
    word = _word(fall, p, int(was.sum()), tolerance)
    moved = f"robust accuracy went from {was.mean():.1%} to {still.mean():.1%}"
    sentence = _sentence(word, moved, fall, p, tolerance)
    if word != "worse" and now.verdict in _BAD_VERDICTS:
        word = _BAD_VERDICTS[now.verdict]
        own = judge(Evidence.of(run), tolerance_of(run)).sentence
        sentence = f"{word}: the evidence does not support this run's own number; {own}"
    return Comparison(
        word=word,
        sentence=sentence,
        before=float(was.mean()),
        now=float(still.mean()),
        fall=fall,
        lost=lost,
        won=won,
        lost_interval=interval(lost, n),
        p=p,
        tolerance=tolerance,
        n=n,
    )


def _word(fall: float, p: float, survived: int, tolerance: float) -> Word:
    if fall > tolerance:
        return "worse" if p < LEVEL else "inconclusive"
    return "inconclusive" if survived < FEWEST else "no worse"


def _sentence(word: Word, moved: str, fall: float, p: float, tolerance: float) -> str:
    if word == "worse":
        return (
            f"worse: {moved}, more than chance explains (p = {p:.2g}) and more than the tolerance "
            f"of {tolerance:.1%}"
        )
    if word == "no worse":
        return f"no worse: {moved}; a fall of up to {tolerance:.1%} is accepted"
    if fall > tolerance:
        return (
            f"inconclusive: {moved}, more than the tolerance of {tolerance:.1%}, but chance may "
            f"explain it (p = {p:.2g}); evaluate more samples"
        )
    return (
        f"inconclusive: {moved}, and fewer than {FEWEST} samples survived in the baseline, so that "
        "any fall could be chance"
    )


def _check_alike(now: Baseline, before: Baseline) -> None:
    if now.data_sha256 != before.data_sha256 or len(now.survived) != len(before.survived):
        raise UsageError("the baseline is of other images; pairs need the same samples")
    for name in before.protocol:
        if now.protocol.get(name) != before.protocol[name]:
            raise UsageError(
                f"the baseline was made with another {name}: {before.protocol[name]}, not "
                f"{now.protocol.get(name)}"
            )
    if now.checks != before.checks:
        ours, theirs = ", ".join(now.checks) or "none", ", ".join(before.checks) or "none"
        raise UsageError(
            f"the baseline was made with other checks: {theirs}; this run has {ours}. "
            "flatguard audit RUN --checks LEVEL runs what is missing"
        )
