"""The exact tests of a claim, against tables that are summed here."""

from math import comb

import pytest

from flatguard.checks.claims.claim import share_of
from flatguard.checks.claims.exact_test import (
    LEVEL,
    Distribution,
    exact_test,
    images_needed,
    is_enough,
)


def binomial(k: int, n: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


def urn(k: int, size: int, known: int, n: int) -> float:
    return comb(known, k) * comb(size - known, n - k) / comb(size, n)


def test_images_of_the_same_distribution_are_binomial() -> None:
    found = exact_test(share_of("0.500", ""), 12, Distribution(40, None))
    assert found.kind == "binomial"
    low, high = 0.4995, 0.5005
    assert found.p_below == pytest.approx(sum(binomial(k, 40, low) for k in range(13)))
    assert found.p_above == pytest.approx(sum(binomial(k, 40, high) for k in range(12, 41)))
    assert found.is_below
    assert not found.is_above
    assert found.text == f"exact binomial test on 40 images: p = {found.p_below:.2g}"


def test_a_part_of_the_claim_s_images_is_hypergeometric() -> None:
    found = exact_test(share_of("80%", ""), 10, Distribution(20, 100))
    assert found.kind == "hypergeometric"
    expected = sum(urn(k, 100, 80, 20) for k in range(11))  # 79.5% of 100 rounds to 80
    assert found.p_below == pytest.approx(expected)
    assert "on 20 images out of 100" in found.text
    whole = exact_test(share_of("80%", ""), 10, Distribution(20, None))
    assert found.p_below < whole.p_below, "a part varies less than a new sample"


@pytest.mark.parametrize(
    ("right", "below", "above"), [(181, False, False), (180, True, False), (182, False, True)]
)
def test_the_claim_s_own_images_are_counted(right: int, below: bool, above: bool) -> None:
    found = exact_test(share_of("90.5%", ""), right, Distribution(200, 200))
    assert (found.kind, found.is_below, found.is_above) == ("count", below, above)
    assert found.text == "counted on the claim's own 200 images"


def test_what_another_device_may_decide_otherwise_counts_for_the_claim() -> None:
    share, own = share_of("90.5%", ""), Distribution(200, 200)
    assert not exact_test(share, 180, own, (0, 1)).is_below
    assert exact_test(share, 180, own, (1, 0)).is_below
    assert not exact_test(share, 182, own, (1, 0)).is_above


def test_a_claim_that_these_images_cannot_have_is_about_others() -> None:
    assert exact_test(share_of("90.5%", ""), 50, Distribution(60, 60)).kind == "binomial"
    assert exact_test(share_of("90%", ""), 50, Distribution(60, 50)).kind == "binomial"


def test_a_sample_is_enough_where_it_would_notice_ten_points() -> None:
    share = share_of("0.905", "")
    assert is_enough(share, Distribution(200, None))
    assert not is_enough(share, Distribution(20, None))
    assert is_enough(share_of("90%", ""), Distribution(20, 20)), "nothing is left to chance"
    needed = images_needed(share_of("50%", ""))
    assert is_enough(share_of("50%", ""), Distribution(needed, None))
    assert not is_enough(share_of("50%", ""), Distribution(needed // 2, None))
    assert is_enough(share_of("0%", ""), Distribution(40, None))


def test_both_tests_together_are_those_of_a_95_percent_interval() -> None:
    assert pytest.approx(0.025) == LEVEL
