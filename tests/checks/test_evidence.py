"""Which attempts fool which survivors."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from support.architectures import tiny
from support.evidence import attempts, determinism, evidence, judged_by

import flatguard
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.runs.run import Run


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
    none_left = judged_by({"control": [1, 2], "loss": [2, 3]}, survivors=[])
    assert none_left.fooled == set()


def test_what_fell_by_luck_is_given_back() -> None:
    random = determinism(100, randomised=True, survivors=range(70))
    found = judged_by({"control": [1, 65]}, repeated=random)
    assert found.given_back == set(range(60, 70))
    assert found.standing == set(range(70))
    assert found.worth_attacking == set(range(60, 70))
    assert found.fooled == {1}
    assert (found.corrected, found.overestimate) == (69, 0)


def test_fresh_draws_after_all_attempts_decide() -> None:
    random = determinism(100, randomised=True)
    shares = [0.6 if i in (1, 2) else 0.4 if i < 61 else 0.9 for i in range(100)]
    table = pd.DataFrame({"sample": range(100), "wrong": shares})
    fresh = ProbeEvidence({"ran": True, "draws": 101}, {"confirmed": table})
    base = judged_by({"control": [1, 2, 3]}, repeated=random)
    found = replace(base, probes={**base.probes, "confirmed-101": fresh})
    assert found.fooled_by("control") == {1, 2}  # 3 was one draw's luck
    assert found.given_back == {60}
    assert found.corrected == 59


def test_why_there_is_no_evidence() -> None:
    failed = ProbeEvidence.missing("the model is on strike")
    assert not failed.ran
    found = evidence(probes={"twins": failed})
    assert found.why_not("twins") == "the model is on strike"
    assert found.why_not("square") == "not part of the checks that ran"
    assert replace(found, stopped="no time").why_not("square") == "budget: no time"


@pytest.mark.parametrize(("room", "reads"), [(2**20, 2), (0, 4)])
def test_a_small_trajectory_is_read_once(
    room: int,
    reads: int,
    tiny_data: tuple[torch.Tensor, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run of two blocks, whose trajectory two checks read."""
    run = flatguard.evaluate(
        tiny().eval(), "torchattacks:PGD", data=tiny_data, eps="2/255", batch_size=6,
        out=tmp_path / "run", checks="none",
    )  # fmt: skip
    read: list[int] = []
    whole = Run.trajectory_of

    def counted(self: Run, block: object) -> pd.DataFrame:
        read.append(1)
        return whole(self, block)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "trajectory_of", counted)
    monkeypatch.setattr("flatguard.runs.kept_tables.MOST", room)
    trajectory = Evidence.of(flatguard.load_run(run.path)).trajectory
    first, second = (pd.concat(list(trajectory), ignore_index=True) for _ in range(2))
    assert len(read) == reads
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == len(run.trajectory)
