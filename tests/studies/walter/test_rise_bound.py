"""Equation 5 and Proposition 8 against the rise of the loss."""

from collections.abc import Callable

import pytest
from support.studies import Plain, claim_of, subject_of

from flatguard.studies.result import Result
from flatguard.studies.walter.local import SHRUNK, look_locally


def test_the_bound_for_any_head_holds_and_the_printed_one_depends_on_the_scale_of_phi(
    result_of: Callable[[str], Result],
) -> None:
    result = result_of("walter-eq5")
    assert claim_of(result, "any-head").verdict == "agrees"
    assert claim_of(result, "any-head").ours == 1.0
    reparametrised = claim_of(result, "reparametrised")
    assert reparametrised.verdict == ("agrees" if reparametrised.ours == 1.0 else "refuted")
    assert reparametrised.note.startswith("Counterexample: φ times 0.0001 and W times 10000 is")
    assert any("explanatory, not a certificate" in note for note in result.notes)


def test_the_second_order_bound_is_counted_along_the_whole_path(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    local = look_locally(subject_of("walter-eq5", plain_digits, 40))
    rise, moved = local.path.rise()[1:], local.moved[1:]
    bound = local.slope * moved + local.log_kappa.exp() / 2 * moved**2
    held = (rise <= bound * (1 + 1e-6) + 1e-9).all(dim=0)
    result = result_of("walter-eq5")
    shrunk = bound + local.printed(SHRUNK).cubic * moved**3
    broken = (rise > shrunk * (1 + 1e-6) + 1e-9).any(dim=0)
    kept = 1 - float(broken.double().mean())
    assert claim_of(result, "reparametrised").ours == pytest.approx(kept)
    assert claim_of(result, "second-order").ours == pytest.approx(float(held.double().mean()))
    assert result.figures["rise"][-1] == pytest.approx(float(rise[-1].median()), rel=1e-3)
    ends = zip(result.figures["bound_for_any_head"], result.figures["rise"], strict=True)
    assert all(bound >= rise for bound, rise in ends)
