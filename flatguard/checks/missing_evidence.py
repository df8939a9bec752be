"""What to do about a check that did not run. Only what changes something is advised."""

from __future__ import annotations

from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import RESUME
from flatguard.geometry.ball import SEARCHED
from flatguard.request import Checks

LARGER_BUDGET = "evaluate again with a larger budget, or fewer samples"
UNDECIDED_ONLY = "evaluate again without --until-decided: all survivors are then attacked"
SEARCHED_NORMS = (
    f"evaluate again with an --eps and one of the norms that flatguard's own attacks know: --norm "
    f"{', '.join(SEARCHED)}"
)
SURROGATE = (
    "try examples made on another MODEL for the same classes: flatguard audit RUN --checks fast "
    "--surrogate MODEL"
)


def how_to_run(
    evidence: Evidence, probe: str, level: Checks = "fast", *, searches: bool = True
) -> str | None:
    """What gives a probe its evidence; None where running it again finds the same.

    Args:
        evidence: of the run.
        probe: its name.
        level: the cheapest level that runs it.
        searches: whether it needs a norm that gradient searches support.
    """
    if (other := _instead(evidence, searches)) is not None:
        return other
    found, command = evidence.probe(probe), f"flatguard audit RUN --checks {level}"
    if found is None or found.facts.get("budget"):
        return command
    return None if found.ran else f"correct what stopped it, then {command}"


def how_to_name_a_surrogate(evidence: Evidence) -> str:
    """A level alone adds a surrogate for few models; naming one always does."""
    return _instead(evidence, searches=True) or SURROGATE


def _instead(evidence: Evidence, searches: bool) -> str | None:
    """What to do where `flatguard audit` runs no check, or none like this; None where it does."""
    if not evidence.complete:
        return LARGER_BUDGET if evidence.stopped is not None else RESUME
    if searches and evidence.norm not in SEARCHED:
        return SEARCHED_NORMS
    return UNDECIDED_ONLY if evidence.drawn is not None else None
