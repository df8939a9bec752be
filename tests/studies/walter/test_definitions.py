"""Lemma 10: its counterexample, and what holds, counted again over the visited points."""

import math
from collections.abc import Callable

import pytest
from support.studies import Plain, claim_of, subject_of

from flatguard.studies.result import Result
from flatguard.studies.walter.path import walk_all


def test_the_first_half_is_refuted_and_the_second_holds(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    result = result_of("walter-lemma10")
    path = walk_all(subject_of("walter-lemma10", plain_digits, 40))
    path = path[path.correct()]
    wrong, loss = path.wrong(), path.loss()
    rise = loss - loss[0]
    flips = claim_of(result, "flips-rise")
    assert flips.verdict == "refuted"
    assert flips.ours == pytest.approx(float((rise[wrong] > 0).double().mean()))
    premise = claim_of(result, "premise")
    assert premise.ours == pytest.approx(float((loss[wrong] >= math.log(10)).double().mean()))
    assert premise.verdict == "refuted"
    large = claim_of(result, "large-rises-flip")
    assert large.samples == int((rise > math.log(10)).sum())
    assert large.verdict == ("agrees" if large.samples else "not-measured")
    least = claim_of(result, "least-rise")
    assert (least.ours, least.verdict, least.samples) == (1.0, "agrees", int(wrong.sum()))
    sure = int((loss[0] < math.log(2)).sum())
    assert least.note.startswith(f"{sure} of {len(path.labels)} clean images")
    star = claim_of(result, "epsilon-star")
    assert star.ours == pytest.approx(float(rise[wrong].min()))
    assert star.verdict == "agrees"
    assert "0 of " in star.note
