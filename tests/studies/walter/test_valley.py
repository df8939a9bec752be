"""Figure 3: peak and valley of κ, counted again sample by sample."""

from collections.abc import Callable

import pytest
from support.studies import Plain, claim_of, subject_of

from flatguard.studies.reproduce import reproduce
from flatguard.studies.result import Result
from flatguard.studies.walter.path import walk_all


def test_peak_flip_and_loss_are_counted_by_sample(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    subject, result = subject_of("walter-fig3", plain_digits, 40), result_of("walter-fig3")
    path = walk_all(subject)
    path = path[path.correct() & path.wrong()[-1]]
    kappa, loss, wrong = path.log_kappa(subject.head()).numpy(), path.loss(), path.wrong()
    n, peaks, near, flatter, rises = len(path.labels), 0, 0, 0, 0
    for i in range(n):
        flip = next(step for step in range(len(wrong)) if wrong[step, i])
        peaks += max(kappa[1:-1, i]) > max(kappa[0, i], kappa[-1, i])
        near += abs(kappa[:, i].argmax() - flip) <= 1
        flatter += kappa[-1, i] < kappa[0, i]
        rises += bool(loss[-1, i] > loss[flip, i])
    for name, count in (
        ("peak", peaks), ("peak-at-flip", near), ("flatter", flatter), ("loss-rises", rises)
    ):  # fmt: skip
        found = claim_of(result, name)
        assert (found.ours, found.samples) == (count / n, n), name
    depth = claim_of(result, "valley-depth")
    middle = path.log_kappa(subject.head())[-1].median()
    assert depth.ours == pytest.approx(float(middle), abs=1e-4)
    clean = path.log_kappa(subject.head())[0].median()
    assert (depth.verdict == "agrees") == (float(clean - middle) >= 10)


def test_a_model_that_is_never_fooled_has_no_valley(plain_digits: Plain) -> None:
    model, (images, labels) = plain_digits
    found = reproduce("walter-fig3", [model], data=(images[:1], (labels[:1] + 1) % 10))
    (claim,) = found.claims
    assert (claim.name, claim.verdict) == ("valley", "not-measured")
    assert claim.note == "the attack fooled no sample"
