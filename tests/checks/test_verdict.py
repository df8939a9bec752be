"""The verdict on evidence whose verdict is known, and what must not change it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.evidence import attempts, determinism, evidence, gradients, judged_by

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.verdict import EXIT_CODES, Verdict, judge

DEAD = gradients(16, margin_state="zero", drops={"raw": 0.0, "tempered": 0.0, "cutting": 1.0})
VANISHED = gradients(16, ratio=0.0, loss_state="zero", drops={"raw": 0.0, "tempered": 1.5})
VANISHED_BUMPS = gradients(
    16, ratio=0.0, loss_state="zero", drops={"raw": 0.0, "tempered": 0.0, "smoothed": 1.0}
)
SQUASHED = gradients(16, margin_state="zero", drops={"raw": 0.0, "saturating": 1.0})
SHATTERED = gradients(16, drops={"raw": 0.0, "tempered": 0.0, "smoothed": 1.0})
BUMPY = gradients(16, predicted=10.0)
RANDOM = determinism(100, randomised=True)
SOME = range(20)


@pytest.mark.parametrize(
    ("found", "verdict", "mechanism"),
    [
        (judged_by(), "consistent", None),
        (judged_by(survivors=()), "vulnerable", None),
        (judged_by({"temperature": range(3), "loss": range(3)}), "consistent", None),
        (judged_by({"temperature": SOME, "loss": SOME}, truth=VANISHED), "masked", "saturation"),
        (judged_by({"saturating": SOME}, truth=SQUASHED), "masked", "saturation"),
        (judged_by({"repair": SOME}, truth=DEAD), "masked", "unavailable-gradient"),
        (judged_by({"smoothed": SOME}, truth=SHATTERED), "masked", "shattered-gradient"),
        (
            judged_by({"smoothed": SOME, "loss": SOME}, truth=VANISHED_BUMPS),
            "masked",
            "shattered-gradient",
        ),
        (judged_by({"eot": SOME}, repeated=RANDOM), "masked", "stochastic"),
        (judged_by({"repeat": SOME}, truth=BUMPY), "masked", "rugged-loss"),
        (judged_by({"budget": SOME}, truth=BUMPY), "masked", "rugged-loss"),
        (judged_by({"control": SOME}), "overestimated", None),
        (judged_by({"control": SOME}, steps=1), "overestimated", None),
        (judged_by({"loss": SOME}), "overestimated", None),
        (judged_by({"estimated": SOME}), "masked", "shattered-gradient"),
        (judged_by({"repeat": SOME}, repeated=RANDOM), "masked", "stochastic"),
        (judged_by({"repair": range(60)}, truth=DEAD), "masked", "unavailable-gradient"),
        (evidence(), "inconclusive", None),
    ],
)
def test_the_word(found: Evidence, verdict: str, mechanism: str | None) -> None:
    judged = judge(found)
    assert (judged.verdict, judged.mechanism) == (verdict, mechanism)
    assert judged.exit_code == EXIT_CODES[judged.verdict]
    assert judged.next


def test_the_numbers() -> None:
    judged = judge(judged_by({"temperature": range(20), "loss": range(10, 25)}, truth=VANISHED))
    assert judged.robust_accuracy == 0.60
    assert judged.corrected_robust_accuracy == pytest.approx(0.35)
    assert judged.overestimate == pytest.approx(0.25)
    low, high = judged.overestimate_interval
    assert low < 0.25 < high
    assert "at most 35.0% is true" in judged.sentence


def test_masked_wins_over_vulnerable() -> None:
    judged = judge(judged_by({"temperature": range(60)}, truth=VANISHED))
    assert (judged.corrected_robust_accuracy, judged.verdict) == (0.0, "masked")


def test_a_few_samples_are_no_masking_and_the_tolerance_decides() -> None:
    found = judged_by({"temperature": range(8), "loss": range(8)}, truth=VANISHED)
    assert judge(found, tolerance=0.05).verdict == "masked"
    assert judge(found, tolerance=0.10).verdict == "consistent"


def test_a_tolerated_number_is_not_one_without_evidence_against_it() -> None:
    found = judged_by({"temperature": range(3), "loss": range(3)}, truth=VANISHED)
    said = judge(found)
    assert (said.verdict, said.exit_code) == ("consistent", 0)
    assert said.sentence.startswith("consistent within 5.0%: ")
    assert said.sentence.endswith("gradient-truth failed")
    many = judge(judged_by({"temperature": SOME, "loss": SOME}), tolerance=0.9)
    assert many.verdict == "consistent"
    assert "no evidence" not in many.sentence


@pytest.mark.parametrize("missing", ["determinism", "gradient-truth", "twins"])
def test_a_missing_core_check_is_inconclusive(missing: str) -> None:
    found = judged_by()
    probes = {name: probe for name, probe in found.probes.items() if name != missing}
    judged = judge(replace(found, probes=probes))
    assert (judged.verdict, judged.exit_code) == ("inconclusive", 3)


def test_gradients_that_leave_torch_unrepaired_are_inconclusive() -> None:
    cut = {"cutting": {"detach": 1, "numpy": 1}}
    truth = replace(gradients(16), facts={"ran": True, "met": cut})
    assert judge(judged_by(truth=truth)).verdict == "inconclusive"
    repaired = replace(truth, facts={"ran": True, "met": {**cut, "front": {"front": 1}}})
    assert judge(judged_by(truth=repaired)).verdict == "consistent"


def test_an_incomplete_run_is_inconclusive() -> None:
    assert judge(replace(judged_by(), complete=False)).verdict == "inconclusive"


def test_dead_gradients_without_a_repair_are_inconclusive() -> None:
    """Unless a search without gradients also found nothing."""
    truth = gradients(16, margin_state="zero", drops={"raw": 0.0, "tempered": 0.0, "cutting": 0.0})
    assert judge(judged_by(truth=truth)).verdict == "inconclusive"
    few = judged_by({"black-box": ()}, truth=truth)
    assert judge(few).verdict == "inconclusive"
    square = attempts(100, range(60), {"black-box": ()})
    many = replace(square, facts={"ran": True, "queries": 2000})
    probes = {**judged_by(truth=truth).probes, "square-2000": many}
    assert judge(replace(few, probes=probes)).verdict == "consistent"


families = st.sampled_from(["control", "temperature", "loss", "float64", "repair", "smoothed"])


@given(
    fell=st.dictionaries(families, st.sets(st.integers(0, 59))),
    truth=st.sampled_from([DEAD, VANISHED, SHATTERED, gradients(16)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_order_pieces_and_names_of_classes_change_nothing(
    fell: dict[str, set[int]], truth: ProbeEvidence, seed: int
) -> None:
    found = judged_by(fell, truth=truth)
    expected = _comparable(judge(found))
    random = np.random.default_rng(seed)
    shuffled = _changed(found, lambda table: table.sample(frac=1.0, random_state=random))
    assert _comparable(judge(shuffled)) == expected
    names = random.permutation(10)
    assert _comparable(judge(_changed(found, lambda table: _relabelled(table, names)))) == expected
    # The same attempts, stored in two probes.
    table = found.probes["twins"].tables["attempts"]
    half = random.random(len(table)) < 0.5
    pieces = {
        "twins": ProbeEvidence({"ran": True}, {"attempts": table[half]}),
        "twins-2": ProbeEvidence({"ran": True}, {"attempts": table[~half]}),
    }
    split = replace(found, probes={**found.probes, **pieces})
    assert _comparable(judge(split)) == expected


def _comparable(verdict: Verdict) -> Verdict:
    """Means of floats depend on the order of their sum in the last digit."""
    rounded = [
        finding.model_copy(update={"value": round(finding.value or 0.0, 9), "data": {}})
        for finding in verdict.findings
    ]
    return verdict.model_copy(update={"findings": tuple(rounded)})


def _changed(found: Evidence, change) -> Evidence:  # type: ignore[no-untyped-def]
    probes = {
        name: ProbeEvidence(p.facts, {key: change(table) for key, table in p.tables.items()})
        for name, p in found.probes.items()
    }
    samples, trajectory = change(found.samples), [change(table) for table in found.trajectory]
    return replace(found, samples=samples, trajectory=trajectory, probes=probes)


def _relabelled(table: pd.DataFrame, names: np.ndarray) -> pd.DataFrame:
    kept = table.copy()
    for column in ("label", "prediction", "clean_prediction", "adv_prediction"):
        if column in kept:
            kept[column] = names[kept[column].to_numpy()]
    return kept
