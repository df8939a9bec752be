"""The verdict: does the evidence support this robust accuracy?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks.advised_attack import stronger
from flatguard.checks.error_rates import ErrorRate, error_rates, within
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import RESUME, Finding, loading
from flatguard.checks.gradient_evidence import USEFUL, gradient_evidence
from flatguard.checks.mechanism import NEEDED, Explanation, Mechanism, explanations, fix_of
from flatguard.checks.missing_evidence import LARGER_BUDGET, how_to_run
from flatguard.checks.preflight.accuracy import CleanAccuracy, clean_accuracy
from flatguard.checks.registry import load_checks
from flatguard.checks.state_evidence import (
    depends_on_earlier_calls,
    taken_back,
    was_attacked_anew,
)
from flatguard.checks.statistics import CONFIDENCE_LEVEL, interval
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError
from flatguard.request import TOLERANCE
from flatguard.runs.json_files import read_json
from flatguard.runs.run import Run

Word = Literal["vulnerable", "consistent", "overestimated", "masked", "inconclusive"]
VERDICT = "verdict.json"
_DONE = "nothing: cite the number with its interval; more images (--n-examples) make it narrower"
_UNDECIDED = "evaluate more images (--n-examples): no check asks for anything else"
_CONCLUSIONS: dict[Word, str] = {
    "vulnerable": "The model is not robust within this budget: under attack it is no better than "
    "guessing.",
    "consistent": "The reported number is supported by the evidence: no check found evidence "
    "against it.",
    "overestimated": "Do not cite the reported number. Stronger attacks found more adversarial "
    "examples. No fault of the model's gradients explains it.",
    "masked": "Do not cite the reported number. The attack failed because the model's gradients, "
    "which attacks follow, mislead it, not because the model is robust.",
    "inconclusive": "Do not cite the reported number yet. The checks that would decide did not "
    "run, or their results contradict each other.",
}
_WITHIN_TOLERANCE = (
    "Cite the corrected number. The reported number differs from it by no more than the "
    "tolerance, but a check failed."
)
_ENOUGH_QUERIES = 2000

EXIT_CODES: dict[Word, int] = {
    "vulnerable": 0, "consistent": 0, "overestimated": 1, "masked": 1, "inconclusive": 3,
}  # fmt: skip


class DecidedBy(BaseModel):
    """The survivors that decided a verdict (`--until-decided`).

    Attributes:
        samples: how many were drawn at random and attacked again.
        fooled: how many of them are fooled.
        of: how many they were drawn from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    fooled: int
    of: int

    @property
    def sentence(self) -> str:
        """What decided it, in words."""
        return f"{self.fooled} of {self.samples} survivors, drawn at random from {self.of}, decide"


class Verdict(BaseModel):
    """The answer, and what it rests on.

    Attributes:
        verdict: `vulnerable`, `consistent`, `overestimated`, `masked` or `inconclusive`.
        mechanism: what explains a masked number; the first of `explanations`.
        explanations: every mechanism that explains it, with its condition and confidence.
        sentence: the answer in one sentence.
        robust_accuracy: the audited number.
        corrected_robust_accuracy: the worst case for each sample over everything tried.
        corrected_interval: its exact 95% interval.
        overestimate: by how much the audited number is too high.
        overestimate_interval: exact 95% interval of that share.
        decided_by: the survivors that decided it, where not all were attacked; the corrected number
            is then an estimate, and its interval holds whenever the checks stop.
        tolerance: the overestimate that is accepted.
        error_rates: how often a sample of this size would pass, by the true overestimate.
        findings: of every check, also of those that did not run.
        next: what to run or to fix next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Word
    mechanism: Mechanism | None
    explanations: tuple[Explanation, ...]
    sentence: str
    robust_accuracy: float
    corrected_robust_accuracy: float
    corrected_interval: tuple[float, float]
    overestimate: float
    overestimate_interval: tuple[float, float]
    decided_by: DecidedBy | None = None
    confidence_level: float = CONFIDENCE_LEVEL
    tolerance: float
    error_rates: tuple[ErrorRate, ...]
    findings: tuple[Finding, ...]
    next: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 if the evidence supports the number, 1 if it refutes it, 3 if it does neither."""
        return EXIT_CODES[self.verdict]

    @property
    def conclusion(self) -> str:
        """What a reader may do with the number, in one or two sentences."""
        failed = any(finding.status == "fail" for finding in self.findings)
        if self.verdict == "consistent" and failed:
            return _WITHIN_TOLERANCE
        return _CONCLUSIONS[self.verdict]

    def _repr_html_(self) -> str:
        """In a notebook: the answer, the numbers with their intervals, the figure."""
        from flatguard.reporting.notebook import verdict_html

        return verdict_html(self)


def verdict_of(run: Run) -> Verdict:
    """The verdict that is stored beside a run's evidence.

    Raises:
        RunFolderError: there is none, or it is damaged; `audit` writes it again.
    """
    file = run.path / VERDICT
    if not file.is_file():
        raise RunFolderError(
            f"{run.path} has no verdict yet; flatguard audit {quoted(run.storage)}"
        )
    try:
        verdict: Verdict = read_json(Verdict, file)
    except RunFolderError as error:
        raise RunFolderError(
            f"{error}; flatguard audit {quoted(run.storage)} writes it anew"
        ) from error
    return verdict


def tolerance_of(run: Run) -> float:
    """The tolerance that a run is judged with, unless another one is given.

    It is that of the stored verdict; that of the run's request where there is none.
    """
    try:
        kept = verdict_of(run).tolerance
    except RunFolderError:
        return run.request.tolerance
    return kept if 0 <= kept < 1 else run.request.tolerance


def judge(evidence: Evidence, tolerance: float = TOLERANCE) -> Verdict:
    """Judge evidence. The order of its rows does not matter.

    Args:
        evidence: of a run.
        tolerance: the overestimate that is accepted, as a share of all samples.
    """
    checks = load_checks()
    found = [check.judge(evidence, tolerance) for check in checks]
    findings = [_loading(finding, evidence) for finding in found]
    decisive = [check.name for check in checks if check.decisive]
    n, reported, corrected = evidence.n, len(evidence.reported), evidence.corrected
    excess, bounds = evidence.overestimate, evidence.corrected_bounds
    least, most = (max(0, reported - bound) for bound in reversed(bounds))
    too_high = not within(least, n, tolerance)
    clean = clean_accuracy(evidence)
    nothing = None if clean is None else clean.nothing_to_judge
    explained = explanations(evidence) if too_high and nothing is None else ()
    word = _word(evidence, findings, too_high, explained, decisive, clean)
    return Verdict(
        verdict=word,
        mechanism=explained[0].mechanism if explained else None,
        explanations=explained,
        sentence=_sentence(word, explained, evidence, findings, tolerance, clean),
        robust_accuracy=reported / n,
        corrected_robust_accuracy=corrected / n,
        corrected_interval=evidence.share_interval(*bounds),
        overestimate=excess / n,
        overestimate_interval=evidence.share_interval(least, most),
        decided_by=_decided_by(evidence),
        tolerance=tolerance,
        error_rates=error_rates(n, tolerance),
        findings=tuple(findings),
        next=_next(word, explained, findings, evidence),
    )


def _loading(finding: Finding, evidence: Evidence) -> Finding:
    if finding.next is None:
        return finding
    step = loading(finding.next, evidence.names_code, evidence.from_python)
    return finding.model_copy(update={"next": step})


def _decided_by(evidence: Evidence) -> DecidedBy | None:
    drawn = evidence.drawn
    if drawn is None:
        return None
    fooled = len(evidence.fooled & drawn.samples)
    return DecidedBy(samples=len(drawn.samples), fooled=fooled, of=drawn.of)


def _word(
    evidence: Evidence,
    findings: list[Finding],
    too_high: bool,
    explained: tuple[Explanation, ...],
    decisive: list[str],
    clean: CleanAccuracy | None,
) -> Word:
    if clean is not None and clean.nothing_to_judge is not None:
        return "inconclusive"
    if too_high:
        return "masked" if explained else "overestimated"
    if evidence.stopped is not None or (clean is not None and clean.undecided is not None):
        return "inconclusive"
    if evidence.drawn is not None:  # they decided it at another tolerance
        return "inconclusive"
    corrected = evidence.corrected
    chance = 1.0 / evidence.num_classes
    if evidence.complete and interval(corrected, evidence.n)[1] <= chance:
        return "vulnerable"
    status = {finding.check: finding.status for finding in findings}
    if not evidence.complete or any(status[name] == "not-run" for name in decisive):
        return "inconclusive"
    if _disagree(evidence, status) or _remembers(evidence):
        return "inconclusive"
    return "consistent"


def _remembers(evidence: Evidence) -> bool:
    """The model's answers depend on earlier calls, and it was not attacked without its memory."""
    if taken_back(evidence):
        return True
    return depends_on_earlier_calls(evidence) and not was_attacked_anew(evidence)


def _disagree(evidence: Evidence, status: Mapping[str, str]) -> bool:
    """Gradients are useless, partly missing, or leave torch, and no repaired one could be tried.

    A few hundred queries without gradients do not replace them; `_ENOUGH_QUERIES` do.
    """
    gradients = gradient_evidence(evidence)
    if gradients is None or _queries(evidence) >= _ENOUGH_QUERIES:
        return False
    if gradients.is_partly_missing and not gradients.is_explained:
        return True
    are_useless = all(drop < USEFUL for drop in gradients.drops.values())
    return gradients.leaves_torch or (status["gradient-truth"] == "fail" and are_useless)


def _queries(evidence: Evidence) -> int:
    probe = evidence.probe("square")
    return int(probe.facts.get("queries", 0)) if probe is not None and probe.ran else 0


def _gradients_failed(findings: list[Finding]) -> bool:
    return any(f.check == "gradient-truth" and f.status == "fail" for f in findings)


def _sentence(
    word: Word,
    explained: tuple[Explanation, ...],
    evidence: Evidence,
    findings: list[Finding],
    tolerance: float,
    clean: CleanAccuracy | None,
) -> str:
    n, corrected = evidence.n, evidence.corrected
    was, now = f"{len(evidence.reported) / n:.1%}", f"{corrected / n:.1%}"
    decided = _decided_by(evidence)
    if word == "masked" and decided is not None:
        return (
            f"masked{_by(explained)}: {was} was reported, about {now} is true; {decided.sentence}"
        )
    if word == "masked":
        return f"masked{_by(explained)}: {was} was reported, at most {now} is true"
    if word == "overestimated":
        return f"overestimated: {was} was reported, at most {now} is true"
    if word == "vulnerable":
        return f"vulnerable: {now} is no better than guessing"
    if word == "inconclusive" and evidence.stopped is not None:
        return f"inconclusive: {evidence.stopped}, so {was} is neither supported nor refuted"
    if word == "inconclusive" and not evidence.complete:
        return f"inconclusive: some images were not attacked yet, and {was} is of the others only"
    if word == "inconclusive" and clean is not None and clean.undecided is not None:
        return f"inconclusive: {clean.undecided}"
    if word == "inconclusive":
        return f"inconclusive: the checks that ran neither support nor refute {was}"
    if not evidence.reported:
        return f"consistent: no image survives the attack, so {was} cannot be too high"
    if corrected / n <= 1.0 / evidence.num_classes:
        return (
            f"consistent: {now} is no better than guessing, but {n} samples are too few to prove it"
        )
    against = [finding.check for finding in findings if finding.status == "fail"]
    if not against and evidence.overestimate / n <= TOLERANCE:
        how = "by the majority of draws, " if evidence.confirmed is not None else ""
        return (
            f"consistent: no evidence against {was}; {how}the worst case over everything tried is "
            f"{now}"
        )
    within = f"consistent within {tolerance:.1%}: {was} was reported, at most {now} is true"
    return f"{within}; {', '.join(against)} failed" if against else within


def _by(explained: tuple[Explanation, ...]) -> str:
    """By which mechanisms; `probably` where only a condition speaks for them."""
    names = " or ".join(found.mechanism for found in explained)
    return f", probably by {names}" if explained[0].confidence == "low" else f" by {names}"


def _next(
    word: Word, explained: tuple[Explanation, ...], findings: list[Finding], evidence: Evidence
) -> tuple[str, ...]:
    if evidence.stopped is not None and not evidence.complete:
        return (LARGER_BUDGET,)
    steps = []
    if not evidence.complete:
        steps.append(loading(RESUME, evidence.names_code, evidence.from_python))
    steps += [fix_of(found, evidence) for found in explained]
    if word == "overestimated" and _gradients_failed(findings):
        steps.append(
            "the model's gradients mislead attacks, and too few images show why: evaluate more "
            "images (--n-examples)"
        )
    elif word == "overestimated":
        steps.append(f"the attack is too weak: {stronger(evidence)}")
    beyond = len(evidence.fooled - evidence.chance)
    if word == "overestimated" and beyond < NEEDED:
        steps.append(
            f"to name the reason, {NEEDED} images are needed that only stronger attacks fool, and "
            f"there {'is' if beyond == 1 else 'are'} {beyond or 'none'}: evaluate more images"
        )
    if word == "inconclusive":
        steps += _longer_search(findings, evidence)
    order = {"fail": 0, "warn": 1, "not-run": 2, "pass": 3}
    for finding in sorted(findings, key=lambda finding: order[finding.status]):
        if finding.next is not None and finding.next not in steps:
            steps.append(finding.next)
    return tuple(steps) or (_DONE if EXIT_CODES[word] == 0 else _UNDECIDED,)


def _longer_search(findings: list[Finding], evidence: Evidence) -> list[str]:
    """Queries instead of gradients, where gradients tell nothing and too few were made."""
    if not _disagree(evidence, {finding.check: finding.status for finding in findings}):
        return []
    how = how_to_run(evidence, f"square-{_ENOUGH_QUERIES}", "full")
    return [] if how is None else [loading(how, evidence.names_code, evidence.from_python)]
