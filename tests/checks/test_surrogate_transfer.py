"""Another model's examples: what they find, and what is judged."""

from dataclasses import replace

from support.check_contexts import Linear, linear
from support.evidence import judged_by

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.surrogate_transfer import CHECK, surrogates_of
from flatguard.targets import make_target

TOLERANCE = 0.05
PROBE = CHECK.probes[0]


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_it_warns_and_never_fails() -> None:
    assert status(judged_by({"surrogate": range(50)})) == "warn"
    assert status(judged_by({"surrogate": ()})) == "pass"


def test_why_nothing_was_attacked() -> None:
    refused = ProbeEvidence({"ran": True, "refused": {"other": "right on only 10%"}})
    base = judged_by()
    finding = CHECK.judge(replace(base, probes={**base.probes, "surrogate-ab": refused}), TOLERANCE)
    assert finding.status == "not-run"
    assert "other is right on only 10%" in finding.summary
    assert "--checks fast --surrogate MODEL" in (finding.next or "")


def test_the_targets_own_copy_finds_everything_and_its_negation_is_refused() -> None:
    context, reach = linear("Linf")
    weight = context.model.head.weight[0]  # type: ignore[union-attr, index]
    same = make_target(Linear(weight.detach()).eval(), "same", "a test")
    wrong = make_target(Linear(-weight.detach()).eval(), "wrong", "a test")
    context.surrogates = [same, wrong]
    found = PROBE.gather(context, 10)
    table = found.tables["attempts"].set_index("sample")["fooled"].sort_index()
    assert (table.to_numpy() == (reach < context.eps).numpy()).all()
    assert set(found.facts["refused"]) == {"wrong"}
    assert str(PROBE.stored_name(context, 10)).startswith(f"surrogate-{same.weights_sha256[:8]}-")
    context.surrogates = []
    assert PROBE.stored_name(context, 10) is None


def test_no_demo_for_other_images_and_never_the_target_itself() -> None:
    context, _ = linear("Linf")
    assert surrogates_of([], "standard", context.evaluation) == []
    assert surrogates_of([context.target], "fast", context.evaluation) == []
