"""Searches without gradients: what they find, and what is judged."""

import torch
from support.check_contexts import linear
from support.evidence import judged_by

from flatguard.checks.black_box import CHECK
from flatguard.checks.evidence import Evidence

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_black_box() -> None:
    assert status(judged_by({"black-box": range(10)})) == "fail"
    assert status(judged_by({"black-box": ()})) == "pass"
    assert status(judged_by({"noise": range(60)})) == "not-run"  # noise alone is no search


def test_square_finds_what_can_be_found_and_counts_its_queries() -> None:
    context, reach = linear("Linf")
    square = next(probe for probe in CHECK.probes if probe.name == "square")
    found = square.gather(context, 300)
    table = found.tables["attempts"].sort_values("sample")
    fooled = torch.tensor(table["fooled"].to_numpy())
    assert found.facts == {"queries": 300}
    assert bool(fooled[reach < 0.5 * context.eps].all())
    assert not bool(fooled[reach > 1.001 * context.eps].any())
    assert 0 < context.meter.forwards <= 302 * len(reach)
    assert square.stored_name(context, 300) == "square-300"


def test_noise_stays_in_the_ball() -> None:
    context, reach = linear("Linf")
    noise = next(probe for probe in CHECK.probes if probe.name == "noise")
    found = noise.gather(context, 8).tables["attempts"].sort_values("sample")
    assert not bool(torch.tensor(found["fooled"].to_numpy())[reach > 1.001 * context.eps].any())
    assert context.meter.forwards <= noise.cost(context, 8)
