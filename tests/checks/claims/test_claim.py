"""Claims as people write them."""

import pytest

from flatguard.checks.claims.claim import claim_of, share_of
from flatguard.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "value", "rounding"),
    [
        ("90.5%", 0.905, 0.0005),
        ("0.905", 0.905, 0.0005),
        (0.905, 0.905, 0.0005),
        ("59.53 %", 0.5953, 0.00005),
        ("0%", 0.0, 0.005),
        (1, 1.0, 0.005),
        ("0.9", 0.9, 0.005),
        (".5", 0.5, 0.005),
        (1e-05, 1e-05, 5e-11),
    ],
)
def test_a_share_is_read_with_its_rounding(typed: object, value: float, rounding: float) -> None:
    found = share_of(typed, "--claim")  # type: ignore[arg-type]
    assert found.value == pytest.approx(value)
    assert found.rounding == pytest.approx(rounding)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("90.5", "expected a share from 0 to 1, got 90.5; write 90.5% for percent"),
        (90.5, "write 90.5% for percent"),
        ("1.5", "write 1.5% for percent"),
        ("101%", "a share of images is at most 100%"),
        ("-5%", "expected a share such as 0.905 or 90.5%, got '-5%'"),
        ("high", "expected a share such as"),
        ("", "expected a share such as"),
        (float("nan"), "expected a share such as"),
        ("90,5%", "expected a share such as"),
    ],
)
def test_what_is_no_share_is_refused(typed: object, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        share_of(typed, "--claim")  # type: ignore[arg-type]
    assert str(caught.value).startswith("--claim: ")
    assert expected in str(caught.value)


def test_the_counts_that_are_written_so() -> None:
    assert share_of("90.5%", "").counts(200) == (181, 181)
    assert share_of("33%", "").counts(10_000) == (3250, 3350)
    assert share_of("90.5%", "").counts(7) is None
    assert share_of("0.3333", "").counts(3) == (1, 1)
    assert str(share_of("90.5%", "")) == "90.5%"
    assert str(share_of("59.53%", "")) == "59.53%"
    assert str(share_of("1", "")) == "100.0%"


def test_a_claim_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(UsageError, match="--claim 92% is above --claim-clean 90%"):
        claim_of("92%", "90%")
    with pytest.raises(UsageError, match=r"no number of 7 images .* 85\.71% and 100\.00%"):
        claim_of("90.5%", None, 7)
    with pytest.raises(UsageError, match=r"--claim-clean 0\.955: no number of 40 images"):
        claim_of("0.9", "0.955", 40)
    with pytest.raises(UsageError, match="expected a number of images, got 0"):
        claim_of("0.9", None, 0)
    assert claim_of("90%", "90%", 10).images == 10
