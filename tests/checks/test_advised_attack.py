"""Every attack that is advised runs: in the norm, and with the number of classes."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from flatguard.attacks import build_attack, parse_args
from flatguard.checks.advised_attack import averaged, scale_free, stronger
from flatguard.checks.evidence import Evidence
from flatguard.geometry.budget import Budget, Norm

EVIDENCE = Evidence(10, 0.1, "Linf", "torchattacks:FGSM", {}, pd.DataFrame(), (), {})


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_what_is_advised_runs(norm: Norm, classes: int) -> None:
    evidence = replace(EVIDENCE, norm=norm, num_classes=classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, classes)).eval()
    images = torch.rand(2, 3, 2, 2)
    labels = (model(images).argmax(1) + 1) % classes  # fooled already: no attack takes long
    advised = [
        attack
        for advise in (stronger, scale_free, averaged)
        for attack in re.findall(r"--attack (\S+)((?: --attack-arg \S+)*)", advise(evidence))
    ]
    for name, arguments in advised:
        args = parse_args(arguments.split(" --attack-arg ")[1:])
        attack = build_attack(name, Budget(norm, 0.1), classes, args)
        assert attack.perturb(model, images, labels, 0).images.shape == images.shape
    assert bool(advised) or norm == "L0"


def test_no_attack_is_advised_against_itself() -> None:
    assert stronger(EVIDENCE).endswith("--attack standard")
    assert stronger(replace(EVIDENCE, attack="standard")).endswith("--attack plus")
    assert "--attack" not in stronger(replace(EVIDENCE, norm="none"))
    assert "--attack" not in stronger(replace(EVIDENCE, attack="plus"))
    few = replace(EVIDENCE, attack="apgd-ce", num_classes=2, attack_args={"n_restarts": 5})
    assert stronger(few).endswith("n_restarts=10")
    assert "--attack" not in scale_free(replace(EVIDENCE, attack="apgd-dlr"))
    eot = replace(EVIDENCE, attack="torchattacks:EOTPGD", attack_args={"eot_iter": 40})
    assert averaged(eot).endswith("--attack-arg eot_iter=80")
    assert "--attack" not in averaged(replace(EVIDENCE, attack="rand", norm="L2"))
