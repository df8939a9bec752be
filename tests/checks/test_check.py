"""What a probe is stored as."""

from typing import Any, cast

from flatguard.checks.check import Probe, every_level
from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import ProbeEvidence

CONTEXT = cast(CheckContext, None)


def probe(**fields: Any) -> Probe:
    return Probe("a", lambda c, n: ProbeEvidence({}), every_level(3), lambda c, n: n, **fields)


def test_a_name_depends_on_the_cost_only_on_request() -> None:
    assert probe().stored_name(CONTEXT, 3) == "a"
    assert probe(stored_as=lambda c, n: f"a-{n}").stored_name(CONTEXT, 3) == "a-3"
    assert probe(stored_as=lambda c, n: None).stored_name(CONTEXT, 3) is None


def test_every_level_spends_the_same() -> None:
    assert every_level(3) == {"fast": 3, "standard": 3, "full": 3}
