"""A trial draws its parts apart, and counts what it says."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.detection.experiment import SampleSizes, draw
from flatguard.errors import DataError, UsageError

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


def test_another_run_is_not_taken(tmp_path: Path, digits_files: Path) -> None:
    """The folder of one radius, under the name of another."""
    from support import digits_target

    import flatguard
    from flatguard.detection.comparison import AttackAtRadius
    from flatguard.detection.experiment import run_experiment
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
    with pytest.raises(UsageError, match="holds a run with another request"):
        run_experiment(
            whole, [AttackAtRadius("torchattacks:FGSM", "0.3")], SIZES, tmp_path / "t", (), Silent()
        )
