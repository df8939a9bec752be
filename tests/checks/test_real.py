"""Verdicts on real networks whose true robustness is known."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.architectures import cnn_wide, resnet20
from support.defences import Before, bits
from torch import nn

import flatguard
from flatguard.checks.verdict import Verdict
from flatguard.data import load_dataset
from flatguard.runs.run import Run
from flatguard.targets.normalized import Normalized

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EVEN = ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))


def network(
    real: Path, net: nn.Module, name: str, numbers: tuple[tuple[float, ...], ...]
) -> nn.Module:
    net.load_state_dict(load_file(real / "checkpoints" / f"{name}.safetensors"))
    return Normalized(net, *numbers).eval()


def certified(real: Path) -> nn.Module:
    return network(real, cnn_wide(), "cifar10_cnn_wide_certified_2_255", EVEN)


def audited(real: Path, model: nn.Module, n: int, eps: str, steps: int, **how: object) -> Run:
    batch = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, n)
    args = {"steps": steps, "random_start": False, "alpha": alpha_of(eps)}
    return flatguard.evaluate(
        model,
        "torchattacks:PGD",
        data=(batch.images, batch.labels),
        eps=eps,
        attack_args=args,
        **how,
    )


def alpha_of(eps: str) -> float:
    return int(eps.split("/")[0]) / 255 / 4


def finding(verdict: Verdict, name: str) -> str:
    return next(f.status for f in verdict.findings if f.check == name)


def test_scaled_logits_are_masked_by_saturation(real: Path) -> None:
    model = network(real, resnet20(), "cifar10_resnet20_standard", IMAGENET)
    run = audited(real, model, 60, "8/255", 10, logit_scale=100.0)
    verdict = flatguard.audit(run)
    assert verdict.robust_accuracy > 0.85
    assert (verdict.verdict, verdict.mechanism) == ("masked", "saturation")
    assert verdict.corrected_robust_accuracy == 0.0
    assert (finding(verdict, "discrepancy"), finding(verdict, "basin")) == ("fail", "warn")
    assert run.summary["verdict"] == "masked"


def test_the_same_network_unscaled_is_vulnerable(real: Path) -> None:
    model = network(real, resnet20(), "cifar10_resnet20_standard", IMAGENET)
    verdict = flatguard.audit(audited(real, model, 60, "8/255", 10))
    assert (verdict.verdict, verdict.robust_accuracy) == ("vulnerable", 0.0)


def test_a_certified_network_is_consistent(real: Path) -> None:
    """AutoAttack standard leaves 55.0% of these 200 right."""
    verdict = flatguard.audit(audited(real, certified(real), 200, "2/255", 20))
    assert verdict.verdict == "consistent"
    assert verdict.corrected_robust_accuracy == pytest.approx(0.55, abs=0.02)


def test_behind_rounding_its_gradient_is_unavailable(real: Path) -> None:
    plain = flatguard.audit(audited(real, certified(real), 200, "2/255", 20))
    behind = Before(certified(real), bits(4))
    verdict = flatguard.audit(audited(real, behind, 200, "2/255", 20))
    assert (verdict.verdict, verdict.mechanism) == ("masked", "unavailable-gradient")
    assert verdict.corrected_robust_accuracy == pytest.approx(
        plain.corrected_robust_accuracy, abs=0.03
    )


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_scale_alone_masks_no_unconfident_network(real: Path, scale: float) -> None:
    torch.manual_seed(0)
    verdict = flatguard.audit(audited(real, certified(real), 80, "2/255", 20, logit_scale=scale))
    assert verdict.verdict == "consistent"


def test_the_standard_checks_cost_a_fifth_of_autoattack_at_most(real: Path) -> None:
    """AutoAttack standard sends 868,544 rows forward for 200 of these images."""
    run = audited(real, certified(real), 60, "2/255", 20, checks="standard")
    verdict = flatguard.audit(run)
    assert not [f.check for f in verdict.findings if f.status == "not-run"]
    assert verdict.verdict == "consistent"
    assert run.summary["check_forwards"] / 60 <= 0.2 * 868_544 / 200
