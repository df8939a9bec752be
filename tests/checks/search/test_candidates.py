"""Which repaired directions are worth an attack."""

from collections.abc import Mapping

import pandas as pd
import pytest
import torch
from support.check_contexts import context_of, linear, trained
from support.defences import Before, bits

from flatguard.checks.search.candidates import best_candidate, candidates, worth_trying


def drops(means: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"candidate": list(means), "drop": list(means.values())})


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"raw": 1.0, "tempered": 0.0, "smoothed": 2.0}, []),  # the usual one is good enough
        ({"raw": 0.2, "tempered": 0.1, "smoothed": 0.24}, []),
        ({"raw": 0.2, "tempered": 0.1, "smoothed": 0.3, "cutting": 0.5}, ["cutting", "smoothed"]),
        ({"raw": 0.0, "smoothed": 0.2, "cutting": 0.5}, ["cutting"]),  # less than half the best
        ({"raw": -1.0, "a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8}, ["d", "c", "b"]),
    ],
)
def test_what_is_worth_trying(means: dict[str, float], expected: list[str]) -> None:
    assert worth_trying({"drops": drops(means)}) == expected


def test_where_the_gradient_is_partly_missing_repairs_are_tried_wherever_they_lead() -> None:
    means = {"raw": 1.0, "tempered": 1.0, "cutting": 0.2, "all": 0.1}
    agreement = {"raw": 0.6, "cutting": 0.4, "all": 0.5}
    values = list(agreement.values())
    responses = pd.DataFrame(
        {"candidate": list(agreement), "agreement": values, "closer": values, "farther": values}
    )
    assert worth_trying({"drops": drops(means), "responses": responses}) == ["all", "cutting"]
    whole = responses.assign(agreement=0.97)
    assert worth_trying({"drops": drops(means), "responses": whole}) == []


def test_where_the_margin_is_dead_what_unsaturates_it_is_tried_whatever_it_showed() -> None:
    flat = drops({"raw": 0.1, "tempered": 0.1, "smoothed": 0.4, "saturating": 0.1})
    dead = pd.DataFrame({"margin_state": ["zero"] * 9 + ["ok"]})
    assert worth_trying({"drops": flat, "gradients": dead}) == ["smoothed", "saturating"]
    alive = pd.DataFrame({"margin_state": ["ok"] * 9 + ["zero"]})
    assert worth_trying({"drops": flat, "gradients": alive}) == ["smoothed"]
    without = drops({"raw": 0.1, "tempered": 0.1, "smoothed": 0.4})
    assert worth_trying({"drops": without, "gradients": dead}) == ["smoothed"]


def test_without_evidence_nothing_is() -> None:
    assert worth_trying({}) == []


def test_a_differentiable_model_has_the_plain_candidates_and_estimates() -> None:
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))
    names = [candidate.name for candidate in candidates(context, rows)]
    assert names == ["raw", "tempered", "smoothed", "estimated"]


def test_the_best_candidate_follows_the_repair_that_leads() -> None:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    model = Before(trained(images, labels), bits(2)).eval()
    weak = "foolbox:LinfAdditiveUniformNoiseAttack"
    context = context_of(model, images, labels, weak, eps="8/255")
    rows = next(context.rows(context.survivors))
    own = best_candidate(context, rows, {})
    assert own.is_own
    assert not bool(own.source(rows.images, rows).gradient.any())
    repaired = best_candidate(
        context, rows, {"drops": drops({"raw": 0.0, "cutting": 1.5, "estimated": 2.0})}
    )
    assert not repaired.is_own
    assert bool(repaired.source(rows.images, rows).gradient.any())
