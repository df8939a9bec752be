"""A result is JSON without NaN, and is read as it was written."""

import pytest
from pydantic import ValidationError

from flatguard.studies.claim import Claim
from flatguard.studies.result import ModelFacts, Result

CLAIM = Claim(name="a", claim="b", paper="c", ours=float("nan"), rule="d", verdict="differs")
RESULT = Result(
    study="walter-fig3", paper="walter2026", reference="Figure 3", claim="b", claims=(CLAIM,),
    models=(ModelFacts(name="demo", source="here", weights_sha256="0"),), shown=None,
    versions={"torch": "2"}, created="2026-01-02T03:04:05+00:00", seconds=1.5,
)  # fmt: skip


def test_it_is_read_as_it_was_written() -> None:
    text = RESULT.model_dump_json()
    assert "NaN" not in text
    assert Result.model_validate_json(text) == RESULT
    assert RESULT.claims[0].ours is None


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        Result.model_validate({**RESULT.model_dump(), "more": 1})
