"""The answer to a claim: reproduced, not reproduced, refuted, or undecided.

It is judged from a run's evidence alone, and kept beside the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from flatguard.checks.claims.claim import Claim
from flatguard.checks.claims.exact_test import (
    LEVEL,
    Distribution,
    ExactTest,
    exact_test,
    images_needed,
    is_enough,
)
from flatguard.checks.evidence import Evidence
from flatguard.checks.preflight.accuracy import clean_accuracy
from flatguard.checks.verdict import Verdict
from flatguard.request import EXAMPLES
from flatguard.runs.run import Run

Answered = Literal["reproduced", "not reproduced", "refuted", "undecided"]

EXIT_CODES: dict[Answered, int] = {
    "reproduced": 0, "not reproduced": 1, "refuted": 1, "undecided": 3,
}  # fmt: skip

_HAIR = 2e-3
"""Two devices round logits to other numbers: decisions by less than this share of the usual margin
may differ between them."""


class Answer(BaseModel):
    """What the evidence says about a claim.

    Attributes:
        word: the answer.
        sentence: the answer in one sentence.
        images: on how many images the claim is judged: those that have an example.
        right: how many of them withstand the examples, or the attack.
        corrected: how many withstand everything that was tried.
        robust: the test of `right`.
        clean: the test of the clean accuracy; None where nothing is claimed about it.
        refuting: the numbers of the samples that are fooled within the budget.
        notes: what else a person should know: about the examples, and the clean accuracy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: Answered
    sentence: str
    images: int
    right: int
    corrected: int
    robust: ExactTest
    clean: ExactTest | None
    refuting: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 if the claim is reproduced, 1 if it is not or is refuted, 3 if neither."""
        return EXIT_CODES[self.word]


@dataclass(frozen=True)
class _Counted:
    """The samples that a claim is judged on, by number.

    Attributes:
        samples: those that have an example.
        right: that withstand the examples, or the attack.
        corrected: that withstand everything that was tried.
        clean: whose clean image is classified correctly.
        doubtful: of `right` and of the others, how many are decided by a hair.
    """

    samples: frozenset[int]
    right: frozenset[int]
    corrected: frozenset[int]
    clean: frozenset[int]
    doubtful: tuple[int, int]

    @property
    def n(self) -> int:
        return len(self.samples)


def answer_claim(claim: Claim, run: Run, evidence: Evidence, verdict: Verdict) -> Answer:
    """Judge a claim by a run's evidence.

    Refuted: fewer images withstand the examples, or the attack, than is claimed, beyond chance; or
    everything that was tried leaves fewer, beyond chance and the verdict's tolerance. Not
    reproduced: more withstand than is claimed, beyond chance, or the clean accuracy is another one.

    Args:
        claim: for the run's norm and radius.
        run: finished or not.
        evidence: of the run.
        verdict: of the same evidence.
    """
    counted = _count(run, evidence)
    spread = Distribution(counted.n, _claimed_images(claim, run))
    robust = exact_test(claim.robust, len(counted.right), spread, counted.doubtful)
    clean = None
    if claim.clean is not None:
        clean = exact_test(claim.clean, len(counted.clean), spread)
    judged = _Judged(claim, run, verdict, counted, robust, clean, spread, _doubt(evidence))
    word = judged.word
    refuting = counted.clean - counted.corrected
    return Answer(
        word=word,
        sentence=judged.sentence(word),
        images=counted.n,
        right=len(counted.right),
        corrected=len(counted.corrected),
        robust=robust,
        clean=clean,
        refuting=tuple(sorted(refuting)) if word == "refuted" else (),
        notes=tuple(judged.notes()),
    )


def _count(run: Run, evidence: Evidence) -> _Counted:
    table = run.samples.set_index("sample")
    without = numbers_in(str(run.manifest.attack_args.get("without_example", "")))
    chosen = table[~table.index.isin(without)] if _has_examples(run) else table
    samples = frozenset(chosen.index.astype(int))
    margins = chosen["adv_margin"].astype("float64")
    hair = _HAIR * float(chosen["clean_margin"].astype("float64").abs().median())
    close = (margins.abs() <= hair) & chosen["clean_correct"]
    robust = chosen["robust"].astype(bool)
    return _Counted(
        samples=samples,
        right=frozenset(evidence.reported & samples),
        corrected=frozenset((evidence.standing - evidence.fooled) & samples),
        clean=frozenset(chosen.index[chosen["clean_correct"]].astype(int)),
        doubtful=(int((close & robust).sum()), int((close & ~robust).sum())),
    )


def numbers_in(text: str) -> set[int]:
    """The numbers of `0-4,9`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(np.arange(int(first), int(last or first) + 1).tolist())
    return found


def _has_examples(run: Run) -> bool:
    return run.request.attack.startswith(EXAMPLES)


def _claimed_images(claim: Claim, run: Run) -> int | None:
    """How many images the claim is about: as it says, or as many as have examples."""
    if claim.images is not None or not _has_examples(run):
        return claim.images
    arguments = run.manifest.attack_args
    each = int(arguments["examples"]) // int(arguments["sets"])
    return each if claim.robust.counts(each) is not None else None


def _doubt(evidence: Evidence) -> str | None:
    """Why the set-up may be another one than the claimer's; None if nothing says so."""
    found = clean_accuracy(evidence)
    return None if found is None else found.undecided


@dataclass(frozen=True)
class _Judged:
    """A claim beside what was counted."""

    claim: Claim
    run: Run
    verdict: Verdict
    counted: _Counted
    robust: ExactTest
    clean: ExactTest | None
    spread: Distribution
    doubt: str | None

    @property
    def word(self) -> Answered:
        if self.doubt is not None:
            return "not reproduced" if self._clean_differs else "undecided"
        if self.robust.is_below or self._checks_refute:
            return "refuted"
        if self.robust.is_above or self._clean_differs:
            return "not reproduced"
        return "undecided" if self._open is not None else "reproduced"

    @property
    def _clean_differs(self) -> bool:
        return self.clean is not None and (self.clean.is_below or self.clean.is_above)

    @property
    def _checks_refute(self) -> bool:
        """Whether everything that was tried leaves too few, beyond the tolerance."""
        share, corrected = self.claim.robust, len(self.counted.corrected)
        if self.robust.kind == "count":
            low, _ = share.counts(self.counted.n) or (0, 0)
            return low - corrected > self.verdict.tolerance * self.counted.n
        accepted = max(0.0, share.lowest - self.verdict.tolerance)
        return self.spread.at_most(corrected, accepted, self.robust.kind) < LEVEL

    @property
    def _open(self) -> str | None:
        """Why nothing is decided although nothing speaks against the claim; None if it is."""
        if self.verdict.verdict == "inconclusive":
            return self.verdict.sentence.removeprefix("inconclusive: ")
        if not is_enough(self.claim.robust, self.spread):
            return (
                f"{self.counted.n} images cannot tell {self.claim.robust} from ten points beside: "
                f"evaluate about {images_needed(self.claim.robust)}, or say with --claim-images "
                "how many the claim is about"
            )
        return None

    def sentence(self, word: Answered) -> str:
        said = f"{word}: {self.claim.robust} is claimed"
        if word == "undecided":
            return f"{said}, and {self.doubt or self._open}"
        if word == "refuted":
            return f"{said}, and at most {self._share(len(self.counted.corrected))} is true: " + (
                self._by_evidence if self.robust.is_below else self._by_checks
            )
        found = f"{self._of(len(self.counted.right))} withstand {self._what}"
        if word == "reproduced":
            return f"{said}, and {found} ({self.robust.text}){self._left_by_checks}"
        if self.robust.is_above and self.doubt is None:
            more = len(self.counted.right) / self.counted.n - self.claim.robust.value
            return (
                f"{said}, and {found}, {100 * more:.1f} points more ({self.robust.text})"
                f"{self._left_by_checks}"
            )
        return f"{said}, with another clean accuracy: {self._clean_text}"

    @property
    def _what(self) -> str:
        return "the examples" if _has_examples(self.run) else self.run.request.attack

    @property
    def _by_evidence(self) -> str:
        count = len(self.counted.clean - self.counted.right)
        verb = "fool" if _has_examples(self.run) else "fools"
        return f"{self._what} {verb} the model on {count} images ({self.robust.text})"

    @property
    def _by_checks(self) -> str:
        count = len(self.counted.right - self.counted.corrected)
        return (
            f"{self._of(len(self.counted.right))} withstand {self._what}, and the checks fool the "
            f"model on {count} of these"
        )

    @property
    def _left_by_checks(self) -> str:
        if len(self.counted.corrected) == len(self.counted.right):
            return ""
        return f"; with flatguard's checks {self._share(len(self.counted.corrected))} is left"

    @property
    def _clean_text(self) -> str:
        assert self.claim.clean is not None
        assert self.clean is not None
        return (
            f"{self.claim.clean} is claimed and {self._share(len(self.counted.clean))} measured "
            f"({self.clean.text})"
        )

    def notes(self) -> list[str]:
        """What else a person should know."""
        found = []
        if self.doubt is not None:
            found.append(f"the set-up may be another one than the claimer's: {self.doubt}")
        if self._clean_differs:
            found.append(f"clean accuracy: {self._clean_text}")
        size = self.spread.claimed_images
        if size is not None and self.robust.kind == "binomial":
            found.append(
                f"which of the {self.counted.n} images here are the {size} of the claim is not "
                "known: both count as samples of one distribution"
            )
        if _has_examples(self.run):
            found += sorted({text for block in self.run.blocks for text in block.warnings})
        return found

    def _share(self, right: int) -> str:
        return f"{right / self.counted.n:.1%}"

    def _of(self, right: int) -> str:
        return f"{right} of {self.counted.n} images ({self._share(right)})"
