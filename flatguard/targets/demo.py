"""The demo model: trained weights that are installed with `pyautoattack`, without a download.

It is a ResNet-18 with 93.7% clean accuracy on CIFAR-10 and no robustness.
"""

from __future__ import annotations

import importlib.resources

import torch

from flatguard.environment.pickles import pickle_code
from flatguard.environment.requirements import needed, repair_command
from flatguard.errors import EnvironmentProblem
from flatguard.targets.target import Defaults, Target, make_target


def load() -> Target:
    """The demo's ResNet-18; its input is RGB in [0, 1] without normalisation."""
    with needed("pyautoattack", "all", "--model demo"):
        from pyautoattack.examples.resnet import ResNet18

    path = importlib.resources.files("pyautoattack") / "examples" / "model_test.pt"
    if not path.is_file():
        raise EnvironmentProblem(
            "pyautoattack's example weights are missing; repair them with: "
            f"{repair_command('pyautoattack')}"
        )
    model = ResNet18()
    with importlib.resources.as_file(path) as file, pickle_code(False):
        state = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    model.eval()
    return make_target(
        model,
        "demo",
        "ResNet-18 from the pyautoattack package",
        Defaults(dataset="demo", norm="Linf", eps="8/255"),
    )
