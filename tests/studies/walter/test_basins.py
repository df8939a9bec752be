"""Figures 2 and 12: widths, take-off points and correlations, counted again."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from support.studies import Plain, claim_of, subject_of
from torch import nn

from flatguard.geometry.basin import basins
from flatguard.studies.reproduce import reproduce
from flatguard.studies.result import Result
from flatguard.studies.walter.path import walk_all


def test_claims_of_figure_2_are_those_of_the_path(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    subject, result = subject_of("walter-fig2", plain_digits, 40), result_of("walter-fig2")
    whole = walk_all(subject)
    correct = ~whole.wrong()[0]
    survives = correct & ~whole.wrong()[-1]
    assert claim_of(result, "robust-accuracy").ours == float(survives.double().mean())
    path = whole[correct]
    scaled = [
        nn.functional.cross_entropy(50 * logits.double(), path.labels, reduction="none")
        for logits in path.logits
    ]
    rise = scaled[-1] - scaled[0]
    assert claim_of(result, "rise-at-s50").ours == pytest.approx(float(rise.median()), rel=1e-6)
    width = basins(path.visited()).ranked()
    log_kappa = path.log_kappa(subject.head())[0]
    rho = spearmanr(width, log_kappa).statistic
    assert claim_of(result, "correlation").ours == pytest.approx(rho)
    assert result.figures["c_width"][2] == pytest.approx(np.median(basins(path.visited()).width))


def test_the_take_off_is_the_first_step_above_a_tenth_of_the_range(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    whole = walk_all(subject_of("walter-fig2", plain_digits, 40))
    path, later, n = whole[whole.correct()], 0, 0
    for i in range(len(path.labels)):
        steps = []
        for scale in (0.5, 50.0):
            rise = path.rise(scale)[:, i]
            steps.append(next((m for m, r in enumerate(rise) if r > 0.1 * rise.max() > 0), None))
        if None not in steps:
            later, n = later + (steps[1] > steps[0]), n + 1
    found = claim_of(result_of("walter-fig2"), "take-off")
    assert (found.ours, found.samples) == (later / n, n)


def test_two_equal_models_have_equal_basins(plain_digits: Plain) -> None:
    model, data = plain_digits
    found = reproduce("walter-fig12", [model, model], data=data, n_examples=20)
    wide = claim_of(found, "times-as-wide")
    assert (wide.ours, wide.verdict) == (1.0, "differs")
    assert "it is 1.00." in wide.note
    subject = subject_of("walter-fig12", plain_digits, 20)
    path = walk_all(subject)
    path = path[path.correct()]
    with torch.no_grad():
        p = path.logits.double().softmax(2)
    trace = (p * (1 - p)).sum(2) * path.features.double().square().sum(2)
    ratio = float(trace[-1].median() / trace[0].median())
    assert claim_of(found, "trace").ours == pytest.approx(ratio, rel=1e-4)
