"""Figure 13: scaled logits make attacks fail, and their decisions stay the same."""

from collections.abc import Callable

import torch
from support.studies import Plain, claim_of, subject_of

from flatguard.geometry.sharpness import log_sum_p_one_minus_p
from flatguard.studies.result import Result


def test_scaling_masks_and_transfer_does_not(result_of: Callable[[str], Result]) -> None:
    found = result_of("walter-fig13")
    assert claim_of(found, "transfer").ours == 1.0
    accuracy = found.figures["robust_accuracy"]
    assert accuracy[-1] > accuracy[0]
    by_first = found.figures["left_by_the_examples_of_s1"]
    assert all(left == by_first[0] for left in by_first)


def test_accuracy_at_scale_1_is_that_of_the_attack(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    subject = subject_of("walter-fig13", plain_digits, 40)
    batch = subject.batch()
    found = subject.context.attack.perturb(
        subject.model, batch.images, batch.labels, subject.seed("attack", 0)
    ).images
    with torch.no_grad():
        clean, attacked = (
            subject.model(x).argmax(1) == batch.labels for x in (batch.images, found)
        )
    result = result_of("walter-fig13")
    share = float((clean & attacked).double().mean())
    assert claim_of(result, "robust-accuracy-s1").ours == share
    assert result.figures["robust_accuracy"][0] == share
    assert claim_of(result, "robust-accuracy-s100").ours == result.figures["robust_accuracy"][-1]


def test_kappa_falls_as_the_logits_are_scaled(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    """The median change of log κ from s = 1 to s: that of Σ p (1 - p), and 2 log s."""
    subject = subject_of("walter-fig13", plain_digits, 40)
    with torch.no_grad():
        logits = subject.model(subject.batch().images).double()
    falls = (log_sum_p_one_minus_p(logits * 100) + 2 * torch.tensor(100.0).log()) < (
        log_sum_p_one_minus_p(logits)
    )
    found = claim_of(result_of("walter-fig13"), "kappa-falls")
    assert found.ours == float(falls.double().mean())
    assert found.samples == 40
