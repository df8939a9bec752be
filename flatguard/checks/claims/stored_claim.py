"""The claim of a run and its answer, in `claim.json` beside the verdict."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from flatguard.checks.claims.answer import Answer, answer_claim
from flatguard.checks.claims.claim import Claim
from flatguard.checks.evidence import Evidence
from flatguard.checks.verdict import Verdict
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run

CLAIM = "claim.json"


class StoredClaim(BaseModel):
    """A claim on a run; `answer` is None until the run is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Claim
    answer: Answer | None = None


def load_claim(run: Run) -> StoredClaim | None:
    """The claim that a run is judged against; None if there is none.

    Raises:
        RunFolderError: its file is damaged.
    """
    file = run.path / CLAIM
    return read_json(StoredClaim, file) if file.is_file() else None


def write_claim(run: Run, claim: Claim) -> None:
    """Keep a claim, so that the next judgement of the run answers it."""
    _write(run, StoredClaim(claim=claim))


def answer_stored_claim(run: Run, evidence: Evidence, verdict: Verdict) -> StoredClaim | None:
    """Answer the run's claim anew and keep the answer; None if the run has no claim."""
    known = load_claim(run)
    if known is None:
        return None
    answer = answer_claim(known.claim, run, evidence, verdict)
    answered = known.model_copy(update={"answer": answer})
    _write(run, answered)
    return answered


def _write(run: Run, stored: StoredClaim) -> None:
    write_text(run.path / CLAIM, stored.model_dump_json(indent=2))
