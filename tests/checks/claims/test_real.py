"""A claim on a real checkpoint with its logits × 100: PGD leaves 90.5%, and nothing is true."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchattacks

import flatguard
from flatguard.data import load_dataset
from flatguard.runs.run import load_run

ARCH = f"{Path(__file__).parents[2] / 'support' / 'architectures.py'}:resnet20"
NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COUNT = 200


def resnet20(real: Path) -> dict[str, Any]:
    return {
        "model": str(real / "checkpoints" / "cifar10_resnet20_standard.safetensors"),
        "data": str(real / "cifar10_test_first1000.npz"),
        "arch": ARCH,
        "eps": "8/255",
        "norm": "Linf",
        "logit_scale": 100.0,
        **NORMALISED,
    }


def test_it_is_refuted_at_once_by_examples_of_the_network_as_it_was(
    real: Path, tmp_path: Path
) -> None:
    asked = resnet20(real)
    batch = load_dataset(asked["data"]).block(0, COUNT)
    target = flatguard.load_target(asked["model"], arch=ARCH, **NORMALISED)
    attack = torchattacks.PGD(target.model, eps=8 / 255, alpha=2 / 255, steps=10)
    attack.random_start = False
    torch.save(attack(batch.images, batch.labels), tmp_path / "adv.pt")
    answer = flatguard.verify(
        claim="90.5%", examples=tmp_path / "adv.pt", n_examples=COUNT, out=tmp_path / "run", **asked
    )
    assert (answer.word, answer.right, answer.corrected) == ("refuted", 0, 0)
    assert answer.sentence == (
        "refuted: 90.5% is claimed, and at most 0.0% is true: the examples fool the model on 182 "
        "images (counted on the claim's own 200 images)"
    )
    assert len(answer.refuting) == 182


@pytest.mark.parametrize("count", [40])
def test_it_is_refuted_without_examples_by_the_checks(
    real: Path, tmp_path: Path, count: int
) -> None:
    answer = flatguard.verify(
        claim="90.5%", attack="torchattacks:PGD", n_examples=count, out=tmp_path / "run",
        attack_args={"steps": 10, "random_start": False}, **resnet20(real),
    )  # fmt: skip
    assert answer.word == "refuted"
    assert answer.right >= 0.85 * count, "the attack itself leaves what is claimed"
    assert answer.corrected <= 1
    assert "withstand torchattacks:PGD, and the checks fool the model on" in answer.sentence
    verdict = load_run(tmp_path / "run").summary["verdict"]
    assert verdict == "masked"
