"""Results that are kept: what is taken, what is run again, and a file with half a line."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from benchmarks.masking_zoo import (
    advice,
    document,
    fingerprint,
    kept_evidence,
    networks,
    pair,
    pairs,
    results,
    runner,
)
from benchmarks.masking_zoo.defences import outputs
from benchmarks.masking_zoo.digits import DigitsNet, digits, fit
from benchmarks.masking_zoo.pairs.making import plain
from benchmarks.masking_zoo.runner import Result
from flatguard.checks.mechanism import FIXES

KEY = results.Key("digits", "fast", "1.0", "abc")
LABEL = {"kind": "honest", "n": 10}
MEASURED = {
    "pair": "digits", "n": 40, "clean": 39, "audited": 8, "left": 4, "low": 0.03, "high": 0.2,
    "kind": "unscored", "fell_to": {}, "error": None, "seconds": 1.0,
}  # fmt: skip


def result(**changes) -> Result:
    words = Result.__dataclass_fields__
    values = dict.fromkeys(words) | {"pair": "digits", "label": LABEL, "mechanism_expected": ("a",)}
    return Result(**(values | {"seconds": 1.5, "verdict": "consistent"} | changes))


def record(key=KEY, **changes) -> results.Record:
    return results.Record(key, "undefended", 10, result(**changes))


def test_what_was_stored_is_found_by_its_exact_key(tmp_path):
    store = results.Store(tmp_path / "deep" / "fast.jsonl")
    assert store.find(KEY) is None
    store.append(record())
    found = results.Store(store.file).find(KEY)
    assert found == record()
    assert found.seconds == 1.5
    for other in ({"fingerprint": "other"}, {"flatguard": "1.1"}, {"checks": "full"}):
        assert store.find(replace(KEY, **other)) is None


def test_a_later_line_replaces_an_earlier_one(tmp_path):
    store = results.Store(tmp_path / "fast.jsonl")
    store.append(record())
    store.append(record(verdict="masked"))
    assert store.find(KEY).result.verdict == "masked"
    assert len(store.records()) == 1


def test_half_a_line_is_no_record_and_spoils_no_other(tmp_path):
    store = results.Store(tmp_path / "fast.jsonl")
    store.append(record())
    whole = store.file.read_text("utf-8")
    store.file.write_text(whole + whole[: len(whole) // 2], "utf-8")
    other = replace(KEY, pair="other")
    store.append(results.Record(other, "undefended", 10, result(pair="other")))
    assert set(store.records()) == {("digits", "fast"), ("other", "fast")}


def test_a_record_without_an_answer_of_today_is_run_again(tmp_path):
    store = results.Store(tmp_path / "fast.jsonl")
    store.append(record())
    stored = json.loads(store.file.read_text("utf-8"))
    del stored["result"]["verdict"]
    store.file.write_text(json.dumps(stored) + "\n", "utf-8")
    assert store.find(KEY) is None


def test_a_file_can_be_put_in_order(tmp_path):
    store = results.Store(tmp_path / "fast.jsonl")
    store.append(record())
    store.append(record())
    store.keep(list(store.records().values()))
    assert len(store.file.read_text("utf-8").splitlines()) == 1


def test_the_page_names_every_pair_with_its_kind_and_images():
    text = document.page({}, {}, pairs.CATALOGUE)
    for entry in pairs.CATALOGUE:
        assert f"{entry.name} ({entry.network}, {entry.n})" in text


def test_a_fingerprint_follows_the_definition_and_not_the_last_bits(monkeypatch):
    images, labels = digits()
    net = DigitsNet().eval()
    found = networks.Network(net, images[:10], labels[:10], 0.1)
    monkeypatch.setattr(networks, "load", lambda name: found)
    one = pair.Pair("one", "digits", plain, "honest", (), pair.itself, n=10)
    before = fingerprint.of_pair(one, net), fingerprint.of_label(one, net)
    nn.init.zeros_(net.fc2.bias)
    assert fingerprint.of_pair(one, net) == before[0]
    assert fingerprint.of_label(one, net) != before[1]
    other = replace(one, n=9)
    scaled = outputs.ScaledLogits(net, 2.0), outputs.ScaledLogits(net, 3.0)
    all_of_them = {fingerprint.of_pair(one, model) for model in (net, *scaled)}
    assert len(all_of_them | {fingerprint.of_pair(other, net)}) == 4


@pytest.fixture(scope="module")
def small_network():
    images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fit(DigitsNet(), images[:600], labels[:600], epochs=6)
    return networks.Network(net, images[-80:], labels[-80:], 0.15)


@pytest.mark.parametrize("name", ["digits", "digits-locked", "digits-module-hook"])
def test_a_named_handful_is_judged(name, small_network, monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "load", lambda asked: small_network)
    chosen = replace(pairs.find(name), n=40)
    run, problem = runner.judged(chosen, "fast", tmp_path)
    assert problem is None
    summary = run.summary
    right = ("vulnerable", "consistent") if name == "digits" else ("masked",)
    assert summary["verdict"] in right
    assert summary["corrected_robust_accuracy"] <= 0.2
    if name != "digits":
        assert summary["mechanism"] in chosen.mechanism


def test_another_level_takes_the_label_and_the_other_judges(small_network, monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "load", lambda asked: small_network)
    monkeypatch.setattr(kept_evidence, "folder_of", lambda *of: tmp_path / "evidence")
    known = result(label={**MEASURED, "overestimate": 0.1}, peers={"a judge": {"alarm": True}})
    asked = runner.Asked("fast", 20, {"digits": known})
    found = runner.run_pair(replace(pairs.find("digits"), n=40), False, asked)
    assert (found.label, found.peers) == (known.label, known.peers)
    assert found.images == 20


@pytest.mark.parametrize(
    ("name", "mechanism"),
    [
        ("digits-locked", "state"),
        ("digits-parity-x1000", "saturation"),
        ("digits-module-hook", "unavailable-gradient"),
    ],
)
def test_advice_that_is_followed_closes_the_gap(name, mechanism, small_network, monkeypatch):
    monkeypatch.setattr(networks, "load", lambda asked: small_network)
    one = advice.followed(replace(pairs.find(name), n=40), mechanism, {"audited": 30, "left": 0})
    assert one.gap == 30
    assert one.share >= 0.5


def test_every_advice_of_a_mechanism_is_followed():
    assert set(advice.FOLLOWED) == set(FIXES)
