"""The outcomes of a gate: one for each finding of a verdict and each threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flatguard.checks.clean_accuracy import NAME as CLEAN_ACCURACY
from flatguard.checks.error_rates import images_needed, within, wrong_pass
from flatguard.checks.finding import Finding, advice
from flatguard.checks.registry import check_names
from flatguard.checks.statistics import interval
from flatguard.checks.verdict import Verdict
from flatguard.detection.flagging import Detection, load_detection
from flatguard.errors import visible
from flatguard.gate.config import DETECTION, INCONCLUSIVE, Thresholds
from flatguard.runs.run import Run

Kind = Literal["finding", "threshold"]
Status = Literal["passed", "allowed", "failed", "undecided"]
_REPORT = "report.html"
_WIDTH = 11


@dataclass(frozen=True)
class Outcome:
    """Whether one finding or threshold lets a run pass.

    Attributes:
        kind: `finding` or `threshold`.
        name: of the check, or of the threshold's key.
        status: `passed`; `failed`; `undecided`: there is too little evidence to decide; `allowed`:
            the same, but the config allows it by name. `failed` and `undecided` shut the gate.
        headline: the result in one sentence.
        details: the number, the threshold, the evidence and the report, a line each.
    """

    kind: Kind
    name: str
    status: Status
    headline: str
    details: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """As it is shown: `finding[basin]`."""
        return f"{self.kind}[{self.name}]"

    @property
    def shut(self) -> bool:
        """Whether it shuts the gate."""
        return self.status in ("failed", "undecided")

    @property
    def text(self) -> str:
        """The headline and its details, one line each; line breaks in quoted text are removed."""
        lines = [self.headline, *(f"  {line}" for line in self.details)]
        return "\n".join(visible(" ".join(line.splitlines())) for line in lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def labels(thresholds: Thresholds) -> list[str]:
    """The labels of all outcomes, known before the attack."""
    found = [f"finding[{name}]" for name in check_names()]
    found += ["threshold[conclusive]", "threshold[max_overestimate]"]
    found += ["threshold[no_masking]"] * thresholds.no_masking
    optional = ("max_wrong_pass", "min_robust_accuracy", "min_detected", "max_false_positives")
    return found + [f"threshold[{n}]" for n in optional if getattr(thresholds, n) is not None]


def outcomes(run: Run, verdict: Verdict, thresholds: Thresholds) -> list[Outcome]:
    """The outcomes of a run, in the order of `labels`."""
    facts = _Facts(run, verdict, thresholds)
    found = [_finding(facts, finding) for finding in verdict.findings]
    found += [_conclusive(facts), _overestimate(facts)]
    found += [_masking(facts)] * thresholds.no_masking
    if thresholds.max_wrong_pass is not None:
        found.append(_wrong_pass(facts, thresholds.max_wrong_pass))
    if thresholds.min_robust_accuracy is not None:
        found.append(_floor(facts, thresholds.min_robust_accuracy))
    found += _rates(facts)
    return found


def exit_code(found: Sequence[Outcome]) -> int:
    """0 if nothing shuts the gate, 1 if something failed, 3 if something is undecided."""
    if any(outcome.status == "failed" for outcome in found):
        return 1
    return 3 if any(outcome.status == "undecided" for outcome in found) else 0


def report_of(run: Run) -> Path:
    """The path of the report, or of the run folder if there is no report."""
    report = run.path / _REPORT
    return report if report.is_file() else run.path


@dataclass(frozen=True)
class _Facts:
    """The inputs of all outcomes."""

    run: Run
    verdict: Verdict
    thresholds: Thresholds

    def details(
        self, measured: str, threshold: str, next_step: str | None = None
    ) -> tuple[str, ...]:
        """One line each; the next step is the verdict's if a finding has none of its own."""
        lines = {
            "measured": measured,
            "threshold": threshold,
            "evidence": self.verdict.sentence,
            "next": advice(next_step or self.verdict.next[0], self.run.storage),
            "report": str(report_of(self.run)),
        }
        return tuple(f"{name:<{_WIDTH}}{line}" for name, line in lines.items())

    def allows(self, name: str) -> bool:
        return name in self.thresholds.allow

    @cached_property
    def detection(self) -> Detection | None:
        return load_detection(self.run)

    @property
    def corrected(self) -> str:
        low, high = self.verdict.corrected_interval
        return (
            f"{self.verdict.corrected_robust_accuracy:.1%} of {len(self.run.samples)} samples "
            f"survive the attack and all checks (95% interval {low:.1%} to {high:.1%}); "
            f"{self.verdict.robust_accuracy:.1%} survive {self.run.request.attack} alone"
        )


def _finding(facts: _Facts, finding: Finding) -> Outcome:
    check = finding.check
    if finding.status == "not-run":
        return _open(
            facts, "finding", check, check,
            f"the check {check} did not run, so it has not passed: {finding.summary}",
            "nothing", f"it must run, unless `allow` names it: allow: [{check}]", finding.next,
        )  # fmt: skip
    if finding.status == "fail" and check == CLEAN_ACCURACY:
        return _open(
            facts, "finding", check, check,
            f"the set-up is in doubt, so there is nothing to decide: {finding.summary}",
            f"{finding.value:.1%} over {finding.samples} images" if finding.value is not None else
            "nothing",
            f"it must pass, unless `allow` names it: allow: [{check}]", finding.next,
        )  # fmt: skip
    if finding.status != "fail":
        return Outcome("finding", check, "passed", f"{check}: {finding.summary}")
    value = "" if finding.value is None else f"{finding.value:.3g} over {finding.samples} samples"
    threshold = "" if finding.threshold is None else f"{finding.threshold:.3g}"
    headline = f"the check {check} fails: {finding.summary}"
    details = facts.details(value or "see the headline", threshold or "none", finding.next)
    return Outcome("finding", check, "failed", headline, details)


def _open(
    facts: _Facts, kind: Kind, name: str, allowed_as: str, headline: str, measured: str,
    threshold: str, next_step: str | None = None,
) -> Outcome:  # fmt: skip
    status: Status = "allowed" if facts.allows(allowed_as) else "undecided"
    return Outcome(kind, name, status, headline, facts.details(measured, threshold, next_step))


def _conclusive(facts: _Facts) -> Outcome:
    verdict, name = facts.verdict, "conclusive"
    if verdict.verdict != INCONCLUSIVE:
        return Outcome("threshold", name, "passed", f"the verdict is {verdict.verdict}")
    return _open(
        facts, "threshold", name, INCONCLUSIVE,
        f"inconclusive: the evidence neither supports nor refutes {verdict.robust_accuracy:.1%}",
        facts.corrected, f"the verdict must be conclusive, unless `allow` has {INCONCLUSIVE}",
    )  # fmt: skip


def _overestimate(facts: _Facts) -> Outcome:
    verdict, name = facts.verdict, "max_overestimate"
    most = facts.thresholds.max_overestimate
    low, high = verdict.overestimate_interval
    found = f"the reported robust accuracy is too high by {verdict.overestimate:.1%} of all samples"
    if verdict.overestimate <= most:
        return Outcome("threshold", name, "passed", found)
    measured = (
        f"{verdict.robust_accuracy:.1%} was reported, at most "
        f"{verdict.corrected_robust_accuracy:.1%} is true (95% interval of the difference "
        f"{low:.1%} to {high:.1%})"
    )
    headline = f"{found}; at most {most:.1%} is accepted"
    return Outcome(
        "threshold", name, "failed", headline, facts.details(measured, f"{name}: {most:.1%}")
    )


def _wrong_pass(facts: _Facts, most: float) -> Outcome:
    """Whether so few images, with so many of them too high, leave at most this chance.

    Where the overestimate itself is not accepted, nothing passes, so nothing passes wrongly.
    """
    verdict, name, n = facts.verdict, "max_wrong_pass", len(facts.run.samples)
    tolerance = facts.thresholds.max_overestimate
    excess = round(verdict.overestimate * n)
    chance = wrong_pass(excess, n, tolerance)
    headline = (
        f"a true overestimate above {tolerance:.1%} would leave at most {excess} of {n} samples "
        f"with a chance of up to {chance:.2g}"
    )
    if chance <= most or not within(excess, n, tolerance):
        return Outcome("threshold", name, "passed", headline)
    needed = images_needed(verdict.overestimate, tolerance, most)
    how = "more images cannot show it: the overestimate is at the tolerance"
    if needed is not None:
        how = f"evaluate {needed:,} images; so many are needed if the overestimate stays the same"
    return Outcome(
        "threshold", name, "undecided", f"{headline}; {most:.2g} is accepted",
        facts.details(f"{excess} of {n} samples", f"{name}: {most:.2g}", how),
    )  # fmt: skip


def _masking(facts: _Facts) -> Outcome:
    verdict, name = facts.verdict, "no_masking"
    if verdict.verdict != "masked":
        return Outcome("threshold", name, "passed", "no gradient masking was found")
    names = " or ".join(found.mechanism for found in verdict.explanations)
    headline = (
        f"gradients are masked by {names}: the evidence refutes the reported "
        f"{verdict.robust_accuracy:.1%}"
    )
    return Outcome(
        "threshold", name, "failed", headline, facts.details(facts.corrected, f"{name}: true")
    )


def _floor(facts: _Facts, floor: float) -> Outcome:
    verdict, name = facts.verdict, "min_robust_accuracy"
    low, share = verdict.corrected_interval[0], verdict.corrected_robust_accuracy
    threshold = f"{name}: {floor:.1%}, for the lower end of the interval"
    if not facts.run.complete or (verdict.verdict == INCONCLUSIVE and share >= floor):
        # `allow` accepts an inconclusive verdict, not a claim about accuracy. If too few samples
        # survive already, more attacks can only leave fewer.
        complete = facts.run.complete
        why = "the verdict is inconclusive" if complete else "the attack was not finished"
        headline = f"{why}, so it is not known whether {floor:.1%} is reached"
        return Outcome(
            "threshold", name, "undecided", headline, facts.details(facts.corrected, threshold)
        )
    if low >= floor:
        headline = f"at least {low:.1%} is robust (95% confidence); {floor:.1%} is required"
        return Outcome("threshold", name, "passed", headline)
    more = "; evaluate more samples" if share >= floor else ""
    headline = (
        f"the corrected robust accuracy is {share:.1%}, at least {low:.1%} with 95% confidence; "
        f"{floor:.1%} is required{more}"
    )
    return Outcome("threshold", name, "failed", headline, facts.details(facts.corrected, threshold))


def _rates(facts: _Facts) -> list[Outcome]:
    """The outcomes of the thresholds for a detector that are set.

    Each is compared with the unfavourable end of the interval, so that chance with few samples
    does not open the gate.
    """
    thresholds = facts.thresholds
    limits = (
        (_detected, "min_detected", "lower", thresholds.min_detected),
        (_false_positives, "max_false_positives", "upper", thresholds.max_false_positives),
    )
    found = []
    for judge, name, end, limit in limits:
        if limit is None:
            continue
        rate = _Rate(name, limit, f"{name}: {limit:.1%}, for the {end} end of the interval")
        detection = facts.detection
        if detection is None or not facts.run.complete:
            why = "no detector was applied" if detection is None else "the attack was not finished"
            how = "flatguard audit RUN --detector FILE" if detection is None else None
            details = facts.details("nothing", rate.threshold, how)
            headline = f"{why}, so it is not known whether {limit:.1%} is kept"
            found.append(Outcome("threshold", name, "undecided", headline, details))
        else:
            found.append(judge(facts, detection, rate))
    return found


@dataclass(frozen=True)
class _Rate:
    """A threshold for a detector: its key, its value, and its text."""

    name: str
    limit: float
    threshold: str


def _detected(facts: _Facts, detection: Detection, rate: _Rate) -> Outcome:
    found, attack = detection.kinds.successful, facts.run.request.attack
    if not found.samples:
        return _open(
            facts, "threshold", rate.name, DETECTION,
            f"{attack} fooled the model on no sample, so there was nothing to detect",
            "no successful adversarial example", f"{rate.threshold}, unless `allow` has detection",
        )  # fmt: skip
    # In use a sample without a score is flagged; it does not count as recognised here.
    share, (low, high) = found.recognised / found.samples, interval(found.recognised, found.samples)
    needed = f"{rate.limit:.1%} is required"
    if low >= rate.limit:
        headline = (
            f"at least {low:.1%} of the successful examples of {attack} are flagged (95% "
            f"confidence); {needed}; {detection.adaptive_evidence}"
        )
        return Outcome("threshold", rate.name, "passed", headline)
    more = "; evaluate more samples" if share >= rate.limit else ""
    headline = (
        f"{share:.1%} of the successful examples of {attack} are flagged, at least {low:.1%} with "
        f"95% confidence; {needed}{more}"
    )
    measured = (
        f"{found.recognised:,} of {found.samples:,} successful adversarial examples (95% interval "
        f"{low:.1%} to {high:.1%}), {found.unmeasured:,} without {found.score}; "
        f"{detection.adaptive_evidence}"
    )
    return Outcome(
        "threshold", rate.name, "failed", headline, facts.details(measured, rate.threshold)
    )


def _false_positives(facts: _Facts, detection: Detection, rate: _Rate) -> Outcome:
    found = detection.kinds.clean
    (low, high), share = found.interval, found.flagged / found.samples
    measured = (
        f"{found.flagged:,} of {found.samples:,} clean images (95% interval {low:.1%} to "
        f"{high:.1%}), {found.unmeasured:,} without {found.score}"
    )
    details = facts.details(measured, rate.threshold)
    accepted = f"at most {rate.limit:.1%} is accepted"
    if detection.in_sample:
        headline = f"{detection.in_sample_warning}; evaluate on others"
        return Outcome("threshold", rate.name, "undecided", headline, details)
    if high <= rate.limit:
        headline = f"at most {high:.1%} of clean images are flagged (95% confidence); {accepted}"
        return Outcome("threshold", rate.name, "passed", headline)
    more = "; evaluate more images" if share <= rate.limit else ""
    headline = (
        f"{share:.1%} of clean images are flagged, up to {high:.1%} with 95% confidence; "
        f"{accepted}{more}"
    )
    return Outcome("threshold", rate.name, "failed", headline, details)
