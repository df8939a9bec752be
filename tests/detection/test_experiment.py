"""An experiment draws disjoint parts, and its counts are those of the model."""

import copy
from pathlib import Path

import pytest
import torch
from support import digits_target
from torch import Tensor, nn

import flatguard
from flatguard.data.arrays import ArrayDataset
from flatguard.detection.comparison import AttackAtRadius
from flatguard.detection.experiment import RESULT, SampleSizes, draw, run_experiment
from flatguard.detection.results import DetectionExperiment
from flatguard.errors import DataError, UsageError
from flatguard.execution import context
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import Silent
from flatguard.request import make_request
from flatguard.targets import Target, prepare
from flatguard.targets.target import make_target

FGSM = "torchattacks:FGSM"

SIZES = SampleSizes(evaluated=50, fitted=20, calibrated=199, adaptive=0)


def fgsm(target: Target, start: int = 0) -> EvaluationContext:
    images, labels = digits_target.images(397, start), digits_target.labels(397, start)
    data = ArrayDataset(images, labels, "digits")
    return context.resolve(make_request(model="digits", attack=FGSM, eps="0.3"), target, data)


def numbered(n: int) -> ArrayDataset:
    """Images that carry their own number, in the order of a folder that is sorted by class."""
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


def test_counts_are_those_of_the_model_and_a_finished_attack_is_reused(
    digits_net: Target, tmp_path: Path
) -> None:
    whole, sizes = fgsm(digits_net), SampleSizes(50, 20, 199, adaptive=5)
    attacks = [AttackAtRadius(FGSM, "0.3"), AttackAtRadius(FGSM, "0.1")]
    found = run_experiment(whole, attacks, sizes, tmp_path, (), Silent())
    batch = draw(whole.dataset, sizes, 0).evaluated
    right = whole.target.model(batch.images).argmax(dim=1) == batch.labels
    for result, one in zip(found.attacks, attacks, strict=True):
        moved = whole.attack.perturb(whole.target.model, batch.images, batch.labels, 0).images
        if one.eps == "0.1":
            assert result.successful < found.attacks[0].successful
        else:
            fooled = right & (whole.target.model(moved).argmax(dim=1) != batch.labels)
            assert result.successful == int(fooled.sum()) > 0
        assert result.clean_wrong == int((~right).sum())
        assert result.successful + result.failed + result.clean_wrong == 50
        assert set(result.detectors) >= {"log-kappa", "energy", "odds"}
    assert [worst.eps for worst in found.worst] == ["0.3", "0.1"]
    assert [radius.results[0].evaded.of for radius in found.adaptive] == [5, 5]
    text = (tmp_path / RESULT).read_text("utf-8")
    assert DetectionExperiment.model_validate_json(text) == found
    assert run_experiment(fgsm(digits_net), attacks, sizes, tmp_path, (), Silent()) == found
    with pytest.raises(UsageError, match="another request or other images"):
        run_experiment(fgsm(digits_net, 400), attacks, sizes, tmp_path, (), Silent())


class Scaled(nn.Module):
    """Computes with a number that no hash of weights covers."""

    def __init__(self, net: nn.Module, scale: float):
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * self.scale)
        return logits


def test_a_finished_attack_on_another_model_is_not_reused(
    digits_net: Target, tmp_path: Path
) -> None:
    """Of the same name: with other weights, or with the same weights and other answers."""
    attacks = [AttackAtRadius(FGSM, "0.3")]

    def of(scale: float, moved: float = 0.0) -> EvaluationContext:
        net = copy.deepcopy(digits_net.model)
        with torch.no_grad():
            next(net.parameters()).add_(moved)
        target = make_target(Scaled(net, scale).eval(), "scaled", "here")
        return fgsm(prepare(target, digits_target.images(4)))

    experiment = SampleSizes(5, 5, 199, adaptive=0)
    run_experiment(of(1.0), attacks, experiment, tmp_path, (), Silent())
    with pytest.raises(UsageError, match="answers otherwise now"):
        run_experiment(of(0.5), attacks, experiment, tmp_path, (), Silent())
    with pytest.raises(UsageError, match="has other weights now"):
        run_experiment(of(1.0, 0.1), attacks, experiment, tmp_path, (), Silent())


def test_another_run_is_not_taken(digits_net: Target, tmp_path: Path) -> None:
    """The folder of one radius, under the name of another."""
    images, labels = digits_target.images(20), digits_target.labels(20)
    flatguard.evaluate(
        digits_target.target(), FGSM, data=(images, labels), eps=0.1, checks="none",
        out=tmp_path / "t" / "runs" / "torchattacks-FGSM-0.3",
    )  # fmt: skip
    attacks = [AttackAtRadius(FGSM, "0.3")]
    with pytest.raises(UsageError, match="holds a run with another request"):
        run_experiment(fgsm(digits_net), attacks, SIZES, tmp_path / "t", (), Silent())
