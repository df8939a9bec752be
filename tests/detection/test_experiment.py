"""A trial draws its parts apart, and counts what it says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.detection.comparison import Group, compare, share_of, worst_case
from flatguard.detection.detector_set import DetectorSet
from flatguard.detection.experiment import SampleSizes, draw
from flatguard.errors import DataError, UsageError
from flatguard.geometry.budget import Budget
from flatguard.targets import Target

SIZES = SampleSizes(evaluated=50, fitted=20, calibrated=199, adaptive=0)


@dataclass(frozen=True)
class At:
    attack: str
    eps: str


def numbered(n: int) -> ArrayDataset:
    """Images that carry their own number, as a folder sorted by class would serve them."""
    values = torch.arange(n).float().view(n, 1, 1, 1).expand(n, 1, 2, 2) / 1000
    return ArrayDataset(values, torch.arange(n) // 30, "numbered")


def test_parts_are_drawn_at_random_and_apart() -> None:
    parts = draw(numbered(300), SIZES, 3)
    batches = (parts.evaluated, parts.fitted, parts.calibrated)
    numbers = [set((b.images[:, 0, 0, 0] * 1000).round().int().tolist()) for b in batches]
    assert [len(n) for n in numbers] == [50, 20, 199]
    assert len(set.union(*numbers)) == 269
    assert len(parts.evaluated.labels.unique()) > 5  # not the first class alone
    attacked = parts.attacked.block(0, len(parts.attacked))
    both = torch.cat([parts.evaluated.images, parts.fitted.images])
    torch.testing.assert_close(attacked.images, both, rtol=0, atol=0)
    again = draw(numbered(300), SIZES, 3)
    torch.testing.assert_close(again.evaluated.images, parts.evaluated.images, rtol=0, atol=0)
    other = draw(numbered(300), SIZES, 4)
    assert not torch.equal(other.evaluated.images, parts.evaluated.images)


def test_too_small_a_data_set_says_what_is_needed() -> None:
    with pytest.raises(DataError, match="has 200 images, but 269 are needed: 50 to evaluate"):
        draw(numbered(200), SIZES, 0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"calibrated": 198}, "198 clean images are too few .* 199 are needed"),
        ({"evaluated": 4}, "expected at least 5 images evaluated, got 4"),
        ({"adaptive": -1}, "expected at least 0 images adaptive, got -1"),
    ],
)
def test_sizes_are_checked(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SampleSizes(**sizes)


class TestCompared:
    """On scores that are made up, so that every number is known."""

    @pytest.fixture
    def panel(self, digits_net: Target) -> DetectorSet:
        panel = DetectorSet(digits_net, 10, 0)
        clean = np.linspace(-1, 1, 399)
        panel.calibrate({"log-kappa": clean, "odds": clean})
        return panel

    def group(self, moved: np.ndarray, successful: list[int]) -> Group:
        clean = np.linspace(-0.9, 0.9, 20)
        scores = {"log-kappa": clean, "odds": clean}
        after = {"log-kappa": moved, "odds": -moved}
        right = np.ones(20, dtype=bool)
        right[0] = False
        failed = np.setdiff1d(np.arange(1, 20), successful)
        fell = np.array(successful, dtype=int)
        return Group(Budget("Linf", 0.1), scores, scores, after, right, fell, failed)

    def test_numbers(self, panel: DetectorSet) -> None:
        moved = np.full(20, -5.0)
        moved[[3, 4]] = 0.0
        group = self.group(moved, list(range(1, 11)))
        found = compare(panel, group, group, 0)
        assert list(found) == ["log-kappa", "odds"]
        kappa, odds = found["log-kappa"], found["odds"]
        assert (kappa.side, odds.side) == ("two-sided", "high")
        assert kappa.tpr_at_5_fpr == kappa.tpr_at_1_fpr == odds.tpr_at_5_fpr == 0.8
        assert (kappa.direction, odds.direction) == ("low", "high")
        five = kappa.at[0]
        assert (five.clean.count, five.clean.of, five.clean_wrong.of) == (0, 20, 1)
        assert (five.failed.of, five.successful.of) == (9, 10)
        assert kappa.auroc == pytest.approx(odds.auroc, abs=0.2)
        assert kappa.stump_unseen is not None
        assert kappa.stump_unseen >= 0.85

    def test_nothing_fell_is_not_measured(self, panel: DetectorSet) -> None:
        group = self.group(np.zeros(20), [])
        kappa = compare(panel, group, group, 0)["log-kappa"]
        assert (kappa.auroc, kappa.stump_folds, kappa.tpr_at_5_fpr) == (None, None, None)
        assert kappa.at[0].successful.interval == (0.0, 1.0)

    def test_a_score_that_is_missing_is_flagged_and_drawn_furthest_out(
        self, panel: DetectorSet
    ) -> None:
        group = self.group(np.full(20, np.nan), list(range(1, 11)))
        kappa = compare(panel, group, group, 0)["log-kappa"]
        assert kappa.tpr_at_1_fpr == 1.0
        assert kappa.auroc == 1.0

    def test_the_worst_case_counts_samples_whose_every_fall_is_flagged(
        self, panel: DetectorSet
    ) -> None:
        caught = self.group(np.full(20, -5.0), [1, 2, 3, 4])
        missed = self.group(np.zeros(20), [4, 5])
        wanted = [At("one", "0.1"), At("two", "0.1"), At("one", "0.2")]
        first, second = worst_case(panel, wanted, [caught, missed, missed])
        assert (first.eps, first.attacks) == ("0.1", ("one", "two"))
        assert (first.caught["log-kappa"][0].count, first.caught["log-kappa"][0].of) == (3, 5)
        assert (second.caught["log-kappa"][0].count, second.caught["log-kappa"][0].of) == (0, 2)


def test_a_share_of_nothing_is_none() -> None:
    assert share_of(np.zeros(0, bool)).share is None
    assert share_of(np.array([True, False])).share == 0.5


def test_another_run_is_not_taken(tmp_path: Path, digits_files: Path) -> None:
    """The folder of one radius, under the name of another."""
    from support import digits_target

    import flatguard
    from flatguard.detection.experiment import AttackAtRadius, run_experiment
    from flatguard.execution import context
    from flatguard.execution.progress import Silent
    from flatguard.request import make_request

    data = digits_target.images(400), digits_target.labels(400)
    target = digits_target.target()
    flatguard.evaluate(
        target, "torchattacks:FGSM", data=(data[0][:20], data[1][:20]), eps=0.1, checks="none",
        out=tmp_path / "t" / "runs" / "torchattacks-FGSM-0.3",
    )  # fmt: skip
    spec = make_request(model="digits", attack="torchattacks:FGSM", eps="0.3")
    whole = context.resolve(spec, digits_target.target(), ArrayDataset(*data, "digits"))
    with pytest.raises(UsageError, match="holds a run of something else"):
        run_experiment(
            whole, [AttackAtRadius("torchattacks:FGSM", "0.3")], SIZES, tmp_path / "t", (), Silent()
        )
