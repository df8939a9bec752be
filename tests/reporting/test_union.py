"""The union of runs: per sample the worst case, and the worst exit code."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from support import digits
from support.digits_target import images, labels
from support.pages import terms_of

from flatguard.checks.evidence import Evidence
from flatguard.checks.verdict import EXIT_CODES, Word, verdict_of
from flatguard.errors import UsageError
from flatguard.evaluation import evaluate
from flatguard.reporting.union import PAGE, SAMPLES, UNION, _word, unite
from flatguard.runs.run import Run

N = 24
THREATS = {"Linf": ("0.1", "torchattacks:PGD"), "L2": ("0.7", "torchattacks:PGDL2")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("union")
    with torch.random.fork_rng():
        net = digits.trained()
    return [
        evaluate(
            net, attack, data=(images(N), labels(N)), norm=norm, eps=eps, out=folder / norm,
            attack_args={"steps": 5},
        )
        for norm, (eps, attack) in THREATS.items()
    ]  # fmt: skip


def test_each_sample_counts_by_its_worst_case(runs: list[Run], tmp_path: Path) -> None:
    union = unite(runs, tmp_path)
    robust = runs[0].samples["robust"].to_numpy() & runs[1].samples["robust"].to_numpy()
    assert union.robust_accuracy == robust.mean()
    left = set(range(N))
    for run in runs:
        found = Evidence.of(run)
        left &= found.standing - found.fooled
    assert union.corrected_robust_accuracy == len(left) / N
    table = pd.read_csv(tmp_path / SAMPLES)
    assert table["robust"].to_numpy().tolist() == robust.tolist()
    assert set(table.loc[table["withstands"], "sample"]) == left
    lowest = min(one.corrected_robust_accuracy for one in union.members)
    assert union.corrected_robust_accuracy <= lowest
    assert json.loads((tmp_path / UNION).read_text())["sentence"] == union.sentence
    page = (tmp_path / PAGE).read_text()
    assert union.sentence in page
    assert all(str(run.request.budget()) in page for run in runs)
    listed = terms_of(page)
    assert {"threat", "corrected robust accuracy"} <= listed
    assert not {"basin", "suffix"} & listed


def test_the_exit_code_is_the_worst(runs: list[Run], tmp_path: Path) -> None:
    codes = {verdict_of(run).exit_code for run in runs}
    union = unite(runs, tmp_path)
    codes.add(EXIT_CODES[union.verdict])
    assert union.exit_code == next(code for code in (1, 3, 0) if code in codes)


@pytest.mark.parametrize(
    ("words", "too_high", "expected"),
    [
        (["consistent", "consistent"], False, "consistent"),
        (["consistent", "consistent"], True, "overestimated"),
        (["masked", "consistent"], True, "masked"),
        (["masked", "consistent"], False, "consistent"),
        (["inconclusive", "consistent"], False, "inconclusive"),
        (["inconclusive", "vulnerable"], False, "vulnerable"),
    ],
)
def test_the_word_is_for_the_unions_own_number(
    words: list[Word], too_high: bool, expected: Word
) -> None:
    assert _word(words, too_high) == expected


def test_what_cannot_be_united_is_said(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs two runs or more, got 1"):
        unite(runs[:1], tmp_path)
    with pytest.raises(UsageError, match="takes each threat once"):
        unite([runs[0], runs[0]], tmp_path)
    other = evaluate(
        digits.digits_net().eval(), "torchattacks:PGDL2", data=(images(N), labels(N)), norm="L2",
        eps="0.5", out=tmp_path / "other", attack_args={"steps": 1}, checks="none",
    )  # fmt: skip
    with pytest.raises(UsageError, match="of different weights"):
        unite([runs[0], other], tmp_path)
    assert not (tmp_path / UNION).exists()
