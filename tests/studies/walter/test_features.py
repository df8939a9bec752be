"""Lemma 7: how far the features move."""

from collections.abc import Callable

import pytest
from support.studies import Plain, claim_of, subject_of

from flatguard.studies.result import Result
from flatguard.studies.walter.path import walk_all


def test_the_features_move_by_what_the_path_says(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    result = result_of("walter-lemma7")
    path = walk_all(subject_of("walter-lemma7", plain_digits, 40))
    path = path[path.correct()]
    features = path.features.double()
    moved = (features[-1] - features[0]).norm(dim=1) / features[0].norm(dim=1)
    assert result.figures["moved"][-1] == pytest.approx(float(moved.median()), rel=1e-4)
    found = claim_of(result, "moved")
    assert (found.verdict, found.samples) == ("agrees", len(path.labels))
    ratio = result.figures["bound"][-1] / result.figures["moved"][-1]
    assert 1.0 <= ratio < 10.0


def test_a_reflection_moves_them_and_bounds_are_no_certificate(
    result_of: Callable[[str], Result],
) -> None:
    result = result_of("walter-lemma7")
    orthogonal = claim_of(result, "orthogonal")
    assert orthogonal.ours is not None
    assert orthogonal.ours <= 1e-6
    assert orthogonal.verdict == "agrees"
    assert any("explanatory, not a certificate" in note for note in result.notes)
