"""Longer searches, larger balls, and signs in the audited path."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from support.check_contexts import WEAK, context_of, linear, trained
from support.defences import Before, bits
from support.evidence import judged_by

from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.more_budget import CHECK, still_rising
from flatguard.execution.progress import Silent

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_more_budget() -> None:
    assert status(judged_by({"budget": ()})) == "pass"
    assert status(judged_by({"budget": range(10)})) == "fail"
    both = {"budget": range(10), "temperature": range(10)}
    assert status(judged_by(both)) == "pass"
    assert status(judged_by({"budget": (), "targeted": range(10)})) == "fail"
    assert status(judged_by({"budget": (), "further": range(10)})) == "fail"


def test_what_fast_searches_near_the_boundary_is_not_a_longer_search() -> None:
    assert status(judged_by({"targeted": range(10)})) == "not-run"


def gathered(context: CheckContext) -> CheckContext:
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    return context


def test_only_what_nothing_has_fooled_is_searched_towards_classes() -> None:
    context, _ = linear("Linf")
    left = set(gathered(context).stored("targeted-5").tables["attempts"]["sample"])
    others = Evidence.of(context.run).attempts.query("attempt != 'targeted'")
    assert left == set(context.survivors) - set(others.loc[others["fooled"], "sample"])
    assert 0 < len(left) < len(context.survivors)


def test_a_repaired_twin_is_searched_first() -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 4
    model = Before(trained(images, labels), bits(3)).eval()
    context = gathered(context_of(model, images, labels, WEAK["Linf"].name, eps="8/255"))
    table = context.stored("targeted-5").tables["attempts"]
    families = table.groupby("attempt", sort=False)["family"].first()
    assert families.to_dict() == {"all, targeted": "repair", "targeted": "targeted"}
    fooled = set(table.loc[table["fooled"] & (table["family"] == "repair"), "sample"])
    assert not fooled & set(table.loc[table["family"] == "targeted", "sample"])


def test_what_the_cascade_tried_is_not_tried_again() -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 4
    net = trained(images, labels)
    for model, expected in ((net, set()), (Before(net, bits(3)).eval(), {"all, targeted"})):
        context = gathered(context_of(model, images, labels, "cascade", norm="Linf", eps="1/255"))
        assert len(context.survivors)
        evidence = context.stored("targeted-5")
        assert evidence.ran
        assert set(evidence.tables["attempts"]["attempt"]) == expected


def sweep(accuracies: list[float]) -> ProbeEvidence:
    rows = [
        {"sample": i, "sight": "raw", "eps": 0.1 * (e + 1), "fooled": i >= accuracy * 100}
        for e, accuracy in enumerate(accuracies)
        for i in range(100)
    ]
    return ProbeEvidence({"ran": True}, {"sweep": pd.DataFrame(rows)})


@pytest.mark.parametrize(
    ("curve", "sign"),
    [([0.5, 0.2, 0.0], None), ([0.2, 0.5, 0.0], "accuracy rises"), ([0.5, 0.4, 0.4], "any image")],
)
def test_accuracy_against_radius(curve: list[float], sign: str | None) -> None:
    base = judged_by({"budget": ()})
    found = replace(base, probes={**base.probes, "sweep": sweep(curve)})
    finding = CHECK.judge(found, TOLERANCE)
    assert finding.status == ("pass" if sign is None else "warn")
    assert sign is None or sign in finding.summary


def test_a_loss_that_still_rises() -> None:
    rows = pd.DataFrame({"sample": 0, "call": range(20), "bookkeeping": False})
    assert still_rising([rows.assign(loss=range(20))]) == pytest.approx(5 / 19)
    flat = [min(i, 10) for i in range(20)]
    assert still_rising([rows.assign(loss=flat)]) == 0.0
    assert still_rising([rows.head(5).assign(loss=1.0)]) is None
