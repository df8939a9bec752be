"""The zoo's scores, and thresholds that are chosen without the kind that they judge."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

import flatguard
from benchmarks.masking_zoo import document, held_out, judges, kept_evidence, pairs, score
from benchmarks.masking_zoo.defences import outputs
from benchmarks.masking_zoo.digits import DigitsNet, digits, fit
from benchmarks.masking_zoo.runner import NO_VERDICT, Result
from flatguard.checks import gradient_evidence, verdict
from flatguard.checks.evidence import Evidence

LABEL = {
    "n": 100, "clean": 90, "audited": 80, "left": 20, "overestimate": 0.6, "low": 0.5,
    "high": 0.7, "error": None,
}  # fmt: skip


def peers(**named):
    """Silent answers, but for those that are named."""
    found = {
        judge.name: {"alarm": False, "named": [], "values": {}, "note": "", "answered": True,
                     "forwards": 10}
        for judge in judges.judges()
    }  # fmt: skip
    for name, signs in named.items():
        found[name] |= {"alarm": True, "named": signs}
    return found


def result(kind, word, mechanism=None, group="g", pair="p", images=100, **named):
    return Result(
        pair=pair, network="net", family="family", group=group, checks="fast", images=images,
        label=LABEL | {"kind": kind}, mechanism_expected=("saturation",), robust_accuracy=0.8,
        verdict=word, mechanism=mechanism, corrected=None, forwards=100, problem=None,
        seconds=0.0, findings={}, peers=peers(**named),
    )  # fmt: skip


def test_scores_count_what_is_scored():
    results = [
        result("masked", "masked", "saturation", **{"AutoAttack's flags": ["zero-gradient"]}),
        result("masked", "overestimated", IoAF=["unstable"]),
        result("masked", "consistent", **{"binarisation test": ["misses planted examples"]}),
        result("honest", "vulnerable", **{"AutoAttack's flags": ["zero-gradient"]}),
        result("honest", "masked", "stochastic"),
        result("unscored", "masked", "saturation", IoAF=["unavailable"]),
    ]
    ours, flags, indicators, binarised, *_ = score.scores(results)
    assert (ours.recall, ours.false_alarms, ours.mechanisms) == (
        score.Share(2, 3), score.Share(1, 2), score.Share(1, 2),
    )  # fmt: skip
    assert (flags.recall, flags.false_alarms, flags.mechanisms) == (
        score.Share(1, 3), score.Share(1, 2), score.Share(1, 1),
    )  # fmt: skip
    assert (indicators.recall, indicators.mechanisms) == (score.Share(1, 3), score.Share(0, 1))
    assert (binarised.recall, binarised.mechanisms) == (score.Share(1, 3), None)
    assert sum(ours.prices) == 600
    assert sum(flags.prices) == 60
    assert "2/3" in score.markdown(results)
    assert "names none" in score.markdown(results)
    assert NO_VERDICT not in score.ALARMS


def test_a_judge_that_cannot_answer_raises_no_alarm_and_is_counted():
    found = result("masked", "masked")
    found.peers["ART"] |= {"answered": False}
    art = score.scores([found])[-1]
    assert (art.recall, art.unanswered) == (score.Share(0, 1), 1)
    assert "no answer · 10" in score.row(found)[-1]


def test_the_thresholds_are_those_of_the_code():
    found = {threshold.name: threshold.value for threshold in held_out.thresholds()}
    assert found["gradient_evidence.USEFUL"] == gradient_evidence.USEFUL
    assert found["gradient_evidence.WHOLE"] == gradient_evidence.WHOLE
    assert {name.split(".")[0] for name in found} >= {"mechanism", "mechanism_conditions"}
    assert found["tolerance"] == 0.05
    assert not any("CONFIDENCE" in name or "QUERIES" in name for name in found)


@pytest.mark.parametrize("value", [0.05, 0.5, 0.92, 1.0])
def test_values_that_are_tried_keep_their_side_of_one(value):
    threshold = held_out.Threshold("x", value)
    tried = [threshold.at(multiple) for multiple in held_out.MULTIPLES]
    assert tried[2] == pytest.approx(value)
    assert min(tried) >= 0
    if value > 0.5:
        assert max(tried) <= 1


def test_a_threshold_is_in_force_everywhere_and_only_for_a_while():
    setting = (("gradient_evidence.USEFUL", 0.3), ("tolerance", 0.2))
    with held_out.in_force(setting) as tolerance:
        assert tolerance == 0.2
        assert {gradient_evidence.USEFUL, verdict.USEFUL} == {0.3}
    assert {gradient_evidence.USEFUL, verdict.USEFUL} == {0.05}
    with pytest.raises(RuntimeError), held_out.in_force(setting):
        raise RuntimeError
    assert verdict.USEFUL == 0.05


class Ruled:
    """A scored pair that is masked where one threshold lies below a bound."""

    def __init__(self, group, kind, bound):
        self.result = result(kind, "", group=group, pair=f"{group} {bound}")
        self.bound = bound

    def verdict(self, setting):
        alarm = dict(setting).get("x", 0.4) <= self.bound
        return ("masked", "saturation") if alarm else ("consistent", None)

    def points(self, setting):
        return sum(score.is_right(*self.verdict(setting), self.result))


def test_a_threshold_is_set_to_the_middle_of_what_is_best_on_the_others():
    tried = [held_out.Threshold("x", 0.4)]  # at 0.1, 0.2, 0.4, 0.8 and 1.6
    sound = Ruled("a", "masked", 2.0)
    assert held_out.chosen([sound], tried) == ()
    missed = Ruled("b", "masked", 0.3)
    assert held_out.chosen([sound, missed], tried) == (("x", 0.1),)
    honest = [Ruled("c", "honest", 0.15)] * 3
    assert held_out.chosen([sound, missed, *honest], tried) == (("x", 0.2),)


@pytest.mark.parametrize(
    ("points", "place"),
    [([1, 1, 1, 1, 1], 2), ([0, 0, 1, 1, 1], 3), ([1, 1, 0, 0, 0], 0), ([0, 0, 1, 1, 0], 3),
     ([0, 1, 1, 1, 1], 3), ([3, 1, 2, 1, 1], 0)],
)  # fmt: skip
def test_of_equal_values_the_middle_and_never_the_nearer_one(points, place):
    assert held_out.middle_of_the_best(points) == place


def test_a_kind_is_judged_without_its_own_say(monkeypatch):
    pairs = [Ruled("a", "masked", 1.0), Ruled("b", "masked", 0.15), Ruled("c", "honest", 0.01)]
    monkeypatch.setattr(held_out, "_with_evidence", lambda results: (pairs, ["lost"]))
    monkeypatch.setattr(held_out, "thresholds", lambda: [held_out.Threshold("x", 0.4)])
    found = held_out.held_out([])
    today, all_kinds, without = found.rows
    assert today.recall == score.Share(1, 2)
    assert all_kinds.recall == score.Share(2, 2)
    assert without.recall == score.Share(1, 2)
    assert found.moved == {"a": (("x", 0.1),), "b": (("x", 0.2),), "c": (("x", 0.1),)}
    assert found.wrong == []  # b is missed today, too
    text = found.markdown()
    assert "Kinds held out: 3" in text
    assert "lost" in text
    assert "2/2" in text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fit(DigitsNet(), images[:500], labels[:500], epochs=6)
        return flatguard.evaluate(
            outputs.ScaledLogits(net, 1000.0).eval(), "torchattacks:PGD",
            data=(images[-40:], labels[-40:]), norm="Linf", eps=0.15,
            attack_args={"steps": 10, "alpha": 0.04, "random_start": False}, n_examples=40,
            out=tmp_path_factory.mktemp("zoo") / "run",
        )  # fmt: skip


def test_kept_evidence_gives_the_same_verdict_and_holds_no_images(run, tmp_path):
    before = Evidence.of(run)
    kept_evidence.keep(before, tmp_path / "kept")
    kept_evidence.keep(before, tmp_path / "kept")
    after = kept_evidence.load(tmp_path / "kept")
    one, other = verdict.judge(before), verdict.judge(after)
    assert one.verdict == "masked"
    for name in ("verdict", "mechanism", "sentence", "corrected_robust_accuracy", "overestimate"):
        assert getattr(one, name) == getattr(other, name)
    pd.testing.assert_frame_equal(before.samples, after.samples)
    files = list((tmp_path / "kept").iterdir())
    assert {file.suffix for file in files} == {".json", ".parquet"}
    assert sum(file.stat().st_size for file in files) < 200_000
    assert kept_evidence.load(tmp_path / "nothing") is None


def test_evidence_of_another_verdict_is_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_evidence, "CACHE", tmp_path)
    kept_evidence.keep(Evidence.of(run), kept_evidence.folder_of("p", "fast"))
    found = result("masked", "masked", run.summary["mechanism"], images=40)
    changed = replace(found, verdict="consistent")
    other = replace(found, pair="unknown")
    fewer = replace(found, images=39)
    judged, left_out = held_out._with_evidence(
        [found, changed, other, fewer, result("unscored", "x")]
    )
    assert [pair.result for pair in judged] == [found]
    assert left_out == ["p", "unknown", "p"]
    strict = (("tolerance", 1.0),)
    assert judged[0].verdict(strict)[0] not in score.ALARMS
    elsewhere = held_out.Judged(found, judged[0].folder)
    with ThreadPoolExecutor(1) as pool:
        assert held_out.chosen([elsewhere], held_out.thresholds()[:2], pool) == ()
    assert len(elsewhere.found) == 9
    assert elsewhere.found[()] == judged[0].found[()]


def test_the_document_holds_every_level_and_says_what_it_rests_on():
    fast = [
        result("masked", "masked", "saturation", pair="one", IoAF=["unstable"]),
        replace(result("honest", "consistent", pair="two"), images=50, forwards=10),
    ]
    full = [replace(one, checks="full") for one in fast]
    held = held_out.HeldOut([], {"g": ()}, [], [], held_out.thresholds())
    text = document.page({"full": full, "fast": fast}, {"fast": held}, pairs.CATALOGUE)
    assert text.index("`--checks fast`") < text.index("`--checks full`")
    assert f"2 of {len(pairs.CATALOGUE)} pairs, of 1 kinds (1 masked, 1 honest, 0 unscored)" in text
    assert "on 50 to 100 images each, 150 in all" in text
    assert "the first images only of 1 pairs" in text
    assert "take 100 forwards, more than flatguard on 1 pairs" in text
    assert text.count("### Kinds left out") == 1
    for judge in judges.judges():
        assert f"| {judge.name} | at most {judge.images} images |" in text
        assert judge.name in text.split("## `--checks fast`")[1]
    assert "## The kinds" in text
    assert "| undefended |" in text
