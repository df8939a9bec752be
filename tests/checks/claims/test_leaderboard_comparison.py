"""RobustBench's figures beside a run: three real entries with random weights in place of theirs."""

from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.reports import SMALL, judged

import flatguard
from flatguard.checks.claims.leaderboard_comparison import (
    Difference,
    LeaderboardComparison,
    compare_with_leaderboard,
)
from flatguard.checks.preflight.leaderboard import EntryName, entry_of, find_row, table_of
from flatguard.data.arrays import ArrayDataset
from flatguard.runs.run import Run, load_run

COUNT = 8


@dataclass(frozen=True)
class Entry:
    name: str
    threat: str
    attack: str
    eps: str | None
    clean: float
    reported: float
    autoattack: float
    external: float | None
    decides: set[str]
    differs: set[str]


ENTRIES = [
    Entry("Wong2020Fast", "Linf", "torchattacks:FGSM", None, 0.8334, 0.4606, 0.4321, None,
          set(), {"images", "attack"}),
    Entry("Gowal2021Improving_R18_ddpm_100m", "Linf", "torchattacks:FGSM", "4/255", 0.8735, 0.585,
          0.5863, 0.585,
          {"radius"}, {"images", "attack", "radius"}),
    Entry("Rice2020Overfitting", "L2", "foolbox:L2PGD", None, 0.8867, 0.716, 0.6768, None,
          set(), {"images", "attack"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def images() -> ArrayDataset:
    """Random pixels under the name of the benchmark's images: torchvision knows CIFAR's files."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    return ArrayDataset(pixels, generator.integers(0, 10, COUNT), "cifar10")


def weights(entry: Entry, folder: Path) -> None:
    """The entry's own network as RobustBench builds it, with random weights."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    zoo = model_dicts[BenchmarkDataset("cifar10")][ThreatModel(entry.threat)]
    torch.manual_seed(0)
    state = zoo[entry.name]["model"]().state_dict()
    file = folder / "cifar10" / entry.threat / f"{entry.name}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "model": state}, file)


def compared(entry: Entry, images: ArrayDataset, folder: Path) -> tuple[Run, LeaderboardComparison]:
    weights(entry, folder / "models")
    options: dict[str, Any] = {} if entry.eps is None else {"eps": entry.eps}
    if entry.attack == "foolbox:L2PGD":
        options["attack_args"] = {"steps": 5}
    run = flatguard.evaluate(
        entry.name, entry.attack, model_dir=folder / "models", data=images,
        threat_model=entry.threat, checks="none", out=folder / "run", **options,
    )  # fmt: skip
    found = run.summary["leaderboard"]
    return run, LeaderboardComparison.model_validate(found)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_with_random_weights_is_beside_its_figures(
    entry: Entry, images: ArrayDataset, tmp_path: Path
) -> None:
    run, found = compared(entry, images, tmp_path)
    figures = {figure.name: figure for figure in found.figures}
    assert figures["clean"].published == pytest.approx(entry.clean)
    assert figures["reported by the authors"].published == pytest.approx(entry.reported)
    assert figures["AutoAttack"].published == pytest.approx(entry.autoattack)
    assert ("external evaluation" in figures) == (entry.external is not None)
    assert {each.what for each in found.differences} == entry.differs
    assert {each.what for each in found.differences if each.decides} == entry.decides
    right = int(run.samples["clean_correct"].sum())
    known = round((entry.clean - 5e-5) * 10_000)
    expected = sum(
        comb(known, k) * comb(10_000 - known, COUNT - k) for k in range(right + 1)
    ) / comb(10_000, COUNT)  # fmt: skip
    test = figures["clean"].test
    assert test is not None
    assert test.p_below == pytest.approx(expected, rel=1e-6)
    assert figures["clean"].answer == "lower", "random weights are right on a tenth"
    is_compared = not entry.decides
    assert (figures["AutoAttack"].answer is not None) == is_compared
    assert (found.rank is not None) == is_compared
    if found.rank is not None:
        rows = table_of(EntryName(entry.name, "cifar10", entry.threat))
        assert found.rank.entries == sum(row.best_known is not None for row in rows)
        share = run.summary["robust_accuracy"]
        better = [row for row in rows if (row.best_known or 0.0) > share]
        assert found.rank.here == len(better), "one of the better ones is the entry itself"
        assert found.rank.published is not None
        assert 1 < found.rank.published < found.rank.entries
    shown(run, found, entry)


def shown(run: Run, found: LeaderboardComparison, entry: Entry) -> None:
    """The report has the section, in the page and for programs."""
    page = (run.path / "report.html").read_text("utf-8")
    assert "Beside the leaderboard" in page
    assert f"{entry.autoattack:.2%}" in page
    for difference in found.differences:
        assert difference.text.split(":")[0] in page
    if entry.decides:
        best = entry.external or entry.autoattack
        assert found.sentence == (
            f"{best:.2%} is published for {entry.name} "
            f"({'external evaluation' if entry.external else 'AutoAttack'}); not compared: another "
            f"{', '.join(entry.decides)}"
        )


def fake(run: Run, source: str, **changes: Any) -> Run:
    """A run whose manifest says that it is about an entry on its benchmark's images."""
    target = run.manifest.target.model_copy(
        update={"source": source, "preprocessing": changes.pop("preprocessing", None)}
    )
    data = run.manifest.data.model_copy(update={"name": changes.pop("data", "cifar10")})
    request = run.request.model_copy(update=changes)
    manifest = run.manifest.model_copy(update={"target": target, "data": data, "request": request})
    return Run(run.storage, manifest)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return judged(tmp_path_factory.mktemp("judged") / "run", SMALL)


CARMON = "RobustBench Carmon2019Unlabeled (cifar10, Linf), a file"
EQUAL = {"norm": "Linf", "eps": "8/255", "attack": "standard"}


def test_a_number_like_the_published_one_is_compatible_on_its_sample_size(run: Run) -> None:
    """Carmon2019Unlabeled: 89.69% clean, 59.53% under AutoAttack."""
    found = compare_with_leaderboard(fake(run, CARMON, **EQUAL), (179, 200), 119)
    assert found is not None
    answers = {figure.name: figure.answer for figure in found.figures}
    assert answers["clean"] == answers["AutoAttack"] == "compatible"
    assert [each.what for each in found.differences] == ["images"]
    assert found.rank is not None
    assert found.rank.interval[0] < found.rank.here < found.rank.interval[1]
    assert "59.5% here is compatible" in found.sentence
    far = compare_with_leaderboard(fake(run, CARMON, **EQUAL), (179, 200), 80)
    assert far is not None
    assert {figure.answer for figure in far.figures[1:]} == {"lower"}


def test_a_weaker_attack_may_leave_more_and_contradicts_nothing(run: Run) -> None:
    options = {**EQUAL, "attack": "torchattacks:PGD"}
    found = compare_with_leaderboard(fake(run, CARMON, **options), (179, 200), 160)
    assert found is not None
    assert found.figures[-1].answer == "higher, as a weaker attack leaves"
    same = compare_with_leaderboard(fake(run, CARMON, **EQUAL), (179, 200), 160)
    assert same is not None
    assert same.figures[-1].answer == "higher"


IMAGENET = "RobustBench Salman2020Do_R18 (imagenet, Linf), a file"
HAZE = "RobustBench Addepalli2021Towards_WRN34 (cifar10, corruptions), a file"


@pytest.mark.parametrize(
    ("source", "changes", "expected", "clean"),
    [
        (CARMON, {**EQUAL, "norm": "L2", "eps": "0.5"}, "norm: L2 here, Linf published", True),
        (CARMON, {**EQUAL, "eps": "0.031"}, "radius: 0.031 here, 8/255 published", True),
        (CARMON, {**EQUAL, "data": "mine.npz"}, "data set: mine.npz here", False),
        (CARMON, {**EQUAL, "mean": (0.5, 0.5, 0.5)}, "mean: (0.5, 0.5, 0.5) here", False),
        (
            IMAGENET,
            {**EQUAL, "eps": "4/255", "data": "imagenet", "preprocessing": "Res256Crop224"},
            "preprocessing: none here, Res256Crop224 published",
            False,
        ),
        (HAZE, EQUAL, "threat model: standard within Linf 8/255 here, corruptions", True),
    ],
)
def test_what_is_not_comparable_is_named_and_not_compared(
    run: Run, source: str, changes: dict[str, Any], expected: str, clean: bool
) -> None:
    made = fake(run, source, **changes)
    found = compare_with_leaderboard(made, (179, 200), 119)
    assert found is not None
    assert any(each.decides and expected in each.text for each in found.differences)
    assert found.rank is None
    assert {figure.answer for figure in found.figures if figure.name != "clean"} == {None}
    assert (found.figures[0].answer is not None) == clean
    assert "not compared: another" in found.sentence


def test_differences_that_do_not_decide(run: Run) -> None:
    made = fake(run, CARMON, **{**EQUAL, "logit_scale": 100.0, "shuffle": True})
    found = compare_with_leaderboard(made, (179, 200), 160)
    assert found is not None
    assert {each.what: each.decides for each in found.differences} == {
        "images": False, "logits": False,
    }  # fmt: skip
    assert found.figures[-1].answer == "higher, as a weaker attack leaves"
    difference = Difference(what="images", here="200 drawn", published="all 10,000", decides=False)
    assert difference.text == "images: 200 drawn here, all 10,000 published"


def test_other_models_have_no_leaderboard(run: Run) -> None:
    assert run.summary["leaderboard"] is None
    assert compare_with_leaderboard(run, (50, 60), 30) is None
    nobody = "RobustBench Nobody2099Nothing (cifar10, Linf), a file"
    assert compare_with_leaderboard(fake(run, nobody, **EQUAL), (50, 60), 30) is None
    assert "leaderboard" not in (run.path / "report.json").read_text("utf-8")
    assert load_run(run.path).summary["leaderboard"] is None


def test_rows_of_the_package_s_table() -> None:
    xiao = find_row(EntryName("Xiao2020Enhancing", "cifar10", "Linf"))
    assert xiao is not None
    assert (xiao.reported, xiao.autoattack, xiao.external) == pytest.approx((0.524, 0.185, 0.074))
    assert xiao.best_known == xiao.external
    three_d = find_row(EntryName("Addepalli2021Towards_WRN34", "cifar10", "corruptions_3d"))
    assert three_d is not None
    assert three_d.best_known is None
    source = "RobustBench A_1 (cifar10, Linf), a file"
    assert entry_of(source) == EntryName("A_1", "cifar10", "Linf")
    assert entry_of("a module from Python") is None
