"""The base of the JSON records."""

import pytest
from pydantic import ValidationError

from flatguard.detection.facts import Facts


class Count(Facts):
    n: int | None = None


def test_an_unknown_key_and_a_change_are_errors() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Count.model_validate_json('{"n": 1, "more": 2}')
    with pytest.raises(ValidationError, match="frozen"):
        Count(n=1).n = 2  # type: ignore[misc]
    assert Count().model_dump_json() == '{"n":null}'
