"""Some survivors first, where gradients are straight; the others if a search finds more there."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from support.check_contexts import context_of, linear, trained
from support.defences import Before, bits
from torch import nn

from flatguard.checks.check import InParts, Probe
from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.first_look import FirstLook, gradients_are_straight, in_two_looks
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.registry import load_checks
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes

LOOK = FirstLook(nearest=0.1, spread=0.1)
SPENT = {"standard": 20, "full": 200}


def _nothing(context: CheckContext, amount: int, batches: object) -> ProbeEvidence:
    return ProbeEvidence({})


HUNT = Probe(
    "hunt", InParts(_nothing), SPENT, lambda context, amount: 1.0, order=90,
    stored_as=lambda context, amount: f"hunt-{amount}", reads=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def straight() -> CheckContext:
    context, _ = linear("Linf")
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    return context


def chosen(probe: Probe, context: CheckContext, amount: int) -> list[int]:
    assert isinstance(probe.gather, InParts)
    return [int(number) for number in probe.gather.samples(context, amount)]


def test_a_linear_model_is_straight_and_rounded_pixels_are_not(straight: CheckContext) -> None:
    assert gradients_are_straight(straight)
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 4
    for model, expected in (
        (trained(images, labels), True),
        (Before(trained(images, labels), bits(3)).eval(), False),
    ):
        context = context_of(model, images, labels, "torchattacks:FGSM", eps="4/255")
        gather_evidence(context.evaluation, context.run, "fast", [], Silent())
        assert gradients_are_straight(context) is expected
        candidates = set(context.stored("gradient-truth").tables["drops"]["candidate"])
        assert ("estimated" in candidates) is not expected


def test_without_the_probe_nothing_is_known_to_be_straight() -> None:
    context, _ = linear("Linf")
    assert not gradients_are_straight(context)
    first, _ = in_two_looks(HUNT, LOOK)
    assert chosen(first, context, 20) == context.survivors.tolist()


def test_the_nearest_come_first_and_some_of_the_others(straight: CheckContext) -> None:
    first, others = in_two_looks(HUNT, LOOK)
    found = chosen(first, straight, 20)
    table = straight.samples.loc[straight.survivors]
    left = (table["adv_margin"] / table["clean_margin"]).sort_values()
    assert set(left.index[:4]) <= set(found)
    assert len(found) == 8 < len(straight.survivors)
    assert chosen(first, straight, 200) == straight.survivors.tolist()
    assert others.levels == {"standard": 20}
    assert (others.order, others.waits, others.name) == (91, True, "rest-of-hunt")
    assert others.stored_name(straight, 20) == "rest-of-hunt-20"


def put(context: CheckContext, name: str, fooled: int | None) -> None:
    rows = pd.DataFrame(
        [{"sample": int(number), "attempt": name, "family": "budget", "wrong": 0.0, "draws": 1,
          "forwards": 1.0, "fooled": int(number) == fooled} for number in context.survivors]
    )  # fmt: skip
    facts = ProbeFacts(
        name=name, checks="standard", ran=True, facts={}, sample_forwards=1, seed=0
    )  # fmt: skip
    add_probe(context.run, facts, {"attempts": rows}, {}, 0.0)


def test_the_others_follow_only_where_the_first_fell_to_nothing_else() -> None:
    context, _ = linear("Linf")
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    first, others = in_two_looks(HUNT, LOOK)
    known = Evidence.of_samples(context.run).fooled
    stands = next(int(number) for number in context.survivors if int(number) not in known)
    put(context, "hunt-1", min(known))
    assert chosen(others, context, 20) == []
    put(context, "hunt-2", stands)
    rest = set(context.survivors.tolist()) - set(chosen(first, context, 20))
    assert set(chosen(others, context, 20)) == rest


def test_at_standard_square_looks_first_and_says_on_how_many(straight: CheckContext) -> None:
    context, reach = linear("Linf")
    gather_evidence(context.evaluation, context.run, "standard", [], Silent())
    probes = load_probes(context.run)
    tables = {name: context.stored(name).tables["attempts"] for name in probes
              if "attempts" in context.stored(name).tables}  # fmt: skip
    assert len(tables["square-200"]) == 8 < len(context.survivors)
    assert not len(tables["rest-of-square-200"])
    assert set(tables["targeted-110"]["attempt"]) == {"cascade"}
    evidence = Evidence.of(context.run)
    reachable = {int(n) for n, r in zip(context.survivors, reach, strict=True) if r < context.eps}
    assert evidence.fooled == reachable
    found = {check.name: check.judge(evidence, 0.05) for check in load_checks()}
    of = f"of {len(context.survivors)} survivors, as"
    assert f"; Square looked at 8 {of}" in found["black-box"].summary
    assert f"; the longer search looked at 9 {of}" in found["more-budget"].summary
    assert "looked at" not in found["discrepancy"].summary
    low, high = found["black-box"].interval or (0, 0)
    whole = replace(evidence, probes={**evidence.probes, "gradient-truth": ProbeEvidence({})})
    narrow = next(c for c in load_checks() if c.name == "black-box").judge(whole, 0.05).interval
    assert narrow is not None
    assert high > narrow[1]
    assert low == 0.0


def test_where_gradients_are_not_straight_all_are_searched() -> None:
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 4
    model: nn.Module = Before(trained(images, labels), bits(3)).eval()
    context = context_of(model, images, labels, "torchattacks:FGSM", eps="4/255")
    assert len(context.survivors) > 10
    gather_evidence(context.evaluation, context.run, "standard", [], Silent())
    for name in ("square-200", "longer-60"):
        table = context.stored(name).tables["attempts"]
        assert set(table["sample"]) == set(context.survivors)
        assert not len(context.stored(f"rest-of-{name}").tables["attempts"])
    assert "cascade" not in set(context.stored("targeted-110").tables["attempts"]["attempt"])
