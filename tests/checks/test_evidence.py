"""Which attempts fool which survivors."""

from dataclasses import replace

from support.evidence import attempts, determinism, evidence, judged_by

from flatguard.checks.evidence import ProbeEvidence


def test_attempts_of_a_better_level_are_preferred() -> None:
    found = evidence(
        probes={
            "square-200": attempts(100, range(60), {"black-box": range(1)}),
            "square-2000": attempts(100, range(60), {"black-box": range(9)}),
        }
    )
    assert found.probe("square") is found.probes["square-2000"]
    assert found.fooled_by("black-box") == set(range(9))


def test_who_is_fooled_by_what() -> None:
    random = determinism(100, randomised=True, wrong=[7])
    found = judged_by({"control": [1, 2], "loss": [2, 3]}, repeated=random)
    assert found.fooled_by("loss") == {2, 3}
    assert found.chance == {1, 2, 7}
    assert found.fooled == {1, 2, 3, 7}
    assert found.tried("loss")
    assert not found.tried("budget")
    assert replace(found, samples=found.samples.assign(robust=False)).fooled == set()


def test_why_there_is_no_evidence() -> None:
    failed = ProbeEvidence.missing("the model is on strike")
    assert not failed.ran
    found = evidence(probes={"twins": failed})
    assert found.why_not("twins") == "the model is on strike"
    assert found.why_not("square") == "its probe was not run"
    assert replace(found, stopped="no time").why_not("square") == "budget: no time"
