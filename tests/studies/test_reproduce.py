"""Every study of Walter et al. on a small network, and runs without a model."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.studies import Plain, claim_of
from torch import nn

from flatguard.errors import RunFolderError, UsageError
from flatguard.runs.run import load_run
from flatguard.studies import STUDIES
from flatguard.studies.reproduce import reproduce, reproduce_from_runs
from flatguard.studies.result import Result
from flatguard.studies.stutz.checkpoint import checkpoint_of

RUN = [
    s for s in STUDIES
    if s.name.startswith("walter") and s.status == "runs-here" and s.prompts is None
]  # fmt: skip


@pytest.mark.parametrize("study", RUN, ids=lambda study: study.name)
def test_every_study_gives_whole_claims(study, result_of: Callable[[str], Result]) -> None:
    result = result_of(study.name)
    names = [found.name for found in result.claims]
    assert names
    assert len(set(names)) == len(names)
    text = json.dumps(result.model_dump(mode="json"), allow_nan=False)
    assert Result.model_validate_json(text) == result
    for found in result.claims:
        assert (found.ours is None) == (found.verdict == "not-measured"), found.name
        assert found.rule
        assert not found.rule.endswith(".")
        if found.interval is not None and found.ours is not None:
            low, high = found.interval
            assert low <= found.ours <= high, found.name
        if found.verdict == "refuted":
            assert (
                "ounterexample" in found.note
                or found.samples
                or "Errors in print" in found.note
                or "1/p_j" in found.note
            ), found.name


def test_a_study_is_the_same_twice(plain_digits: Plain) -> None:
    model, data = plain_digits
    first, second = (
        reproduce("walter-prop9", [model], data=data, n_examples=10, seed=3) for _ in range(2)
    )
    assert first.claims == second.claims
    assert first.figures == second.figures


def test_a_model_without_a_head_is_refused_by_name(plain_digits: Plain) -> None:
    headless = nn.Sequential(plain_digits[0], nn.Tanh())
    with pytest.raises(UsageError, match="needs the model's final linear layer"):
        reproduce("walter-fig2", [headless], data=plain_digits[1], n_examples=4)


def test_the_number_of_models_must_fit(plain_digits: Plain) -> None:
    model, data = plain_digits
    with pytest.raises(UsageError, match="walter-fig13: expected one --model, got 2"):
        reproduce("walter-fig13", [model, model], data=data)
    with pytest.raises(UsageError, match="walter-table1: expected no --model, got 1"):
        reproduce("walter-table1", [model], data=data)
    alone = reproduce("walter-fig12", [model], data=data, n_examples=4)
    assert claim_of(alone, "times-as-wide").verdict == "not-measured"
    assert math.isfinite(alone.seconds)


def test_runs_are_read_without_a_model(checkpoints: Path, answer: dict) -> None:
    found = reproduce_from_runs("stutz-fig1", [checkpoints / "out"])
    assert [claim.verdict for claim in found.claims] == ["not-measured"] * len(found.claims)
    assert all("5 training runs" in claim.note for claim in found.claims)
    assert [row["epoch"] for row in found.figures["checkpoints"]] == [1, 2]
    assert found.shown is not None
    assert found.shown.samples == 30
    json.loads(found.model_dump_json())


def test_runs_that_do_not_fit_are_refused(checkpoints: Path, answer: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes no --runs"):
        reproduce_from_runs("stutz-fig4", [checkpoints / "out"])
    with pytest.raises(RunFolderError, match="holds no runs"):
        reproduce_from_runs("stutz-fig1", [tmp_path])
    bare = tmp_path / "bare"
    shutil.copytree(checkpoints / "out" / "at-s0-epoch-1", bare)
    shutil.rmtree(bare / "evidence" / "probes")
    with pytest.raises(RunFolderError, match="no weight flatness"):
        checkpoint_of(load_run(bare))
