"""The benchmark of contenders: what it counts, and that it is counted outside what is measured."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.contenders import (
    BARE,
    Measured,
    Subject,
    contenders,
    counted,
    find,
    measure,
    table,
)
from benchmarks.timing import ratio_of
from flatguard.data.dataset import Batch
from flatguard.targets import make_target, prepare


def _subject() -> Subject:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval()
    images = torch.rand(6, 3, 8, 8)
    count, labels = counted(model), model(images).argmax(1)
    target = prepare(make_target(model, "small", "a test"), images)
    return Subject(target, Batch(images, labels), 0.02, 3, count)


def test_rows_are_counted_in_a_model_and_in_its_copies() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    count = counted(model)
    x = torch.rand(4, 3, 2, 2, requires_grad=True)
    model(x).sum().backward()
    with torch.no_grad():
        copy.deepcopy(model)(x[:3])
    assert (count.forwards, count.backwards) == (7, 4)


def test_every_contender_attacks_the_same_samples_in_turns() -> None:
    subject = _subject()
    slow = ["AutoAttack standard", "PGD with --checks standard", "recorded PGD, --engine compile"]
    entries = contenders(subject, slow)
    assert ("cascade" in entries) == find("cascade")
    assert "recorded PGD, --engine channels-last" in entries
    assert "recorded PGD, --engine fold-batchnorm" not in entries  # it has none
    entries.pop("cascade", None)
    found = {each.name: each for each in measure(subject, entries, turns=2)}
    bare = found[BARE]
    assert (bare.forwards, bare.backwards) == (18, 18)
    assert bare.right is not None
    assert 0 <= bare.right <= 6
    assert (found["recorded PGD"].forwards, found["recorded PGD"].backwards) == (18, 18)
    # The pass that measures the twin's result on the model itself is part of its price.
    assert found["recorded PGD, --engine bfloat16"].forwards == 24
    assert all(len(each.seconds) == 2 for each in found.values())
    assert len(table(list(found.values()))) == 1 + len(found)


@pytest.mark.parametrize("network", ["cnn_a_pgd", "resnet20_rsfgsm"])
def test_the_page_has_the_kept_measurements(network: str) -> None:
    docs = Path(__file__).parents[2] / "docs"
    file = docs / "performance" / f"contenders-{network}.json"
    kept = [Measured(**each) for each in json.loads(file.read_text("utf-8"))["measured"]]
    page = (docs / "performance.md").read_text("utf-8")
    assert all(line.rstrip() in page for line in table(kept))


def test_the_spread_of_a_ratio_holds_its_median() -> None:
    ratio = ratio_of([2.0, 4.0, 2.2, 1.8], [1.0, 2.0, 1.0, 1.0])
    assert ratio.median == 2.0
    assert 1.8 <= ratio.lower <= 2.0 <= ratio.upper <= 2.2
