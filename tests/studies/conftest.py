"""A plain network for digits, its images, its results, and checkpoints of a training run."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from support.digits import TRAINING, digits, digits_net
from support.studies import Plain, robust_flatness
from support.weight_space import fitted

from flatguard.studies import find_study
from flatguard.studies.reproduce import reproduce
from flatguard.studies.result import Result


@pytest.fixture(scope="session")
def plain_digits() -> Plain:
    torch.manual_seed(0)
    net, (images, labels) = digits_net(), digits()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(25):
        for rows in torch.randperm(TRAINING).split(50):
            optimiser.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimiser.step()
    held_out = slice(TRAINING, TRAINING + 60)
    return net.eval(), (images[held_out], labels[held_out])


@pytest.fixture(scope="session")
def result_of(plain_digits: Plain) -> Callable[[str], Result]:
    """A study's result on 40 images, computed once; Figure 14 is slow and gets two."""
    model, data = plain_digits

    @cache
    def run(name: str) -> Result:
        count = {"walter-fig14": 2, "walter-table1": None}.get(name, 40)
        models = [] if find_study(name).models == "none" else [model]
        return reproduce(name, models, data=data, n_examples=count)

    return run


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of one training run, and its data."""
    folder = tmp_path_factory.mktemp("checkpoints")
    images, labels = digits()
    for name, rows in (("test", slice(100, 200)), ("seen", slice(0, 40)), ("held", slice(40, 60))):
        np.savez(
            folder / f"{name}.npz",
            images=images[rows].permute(0, 2, 3, 1).numpy(), labels=labels[rows].numpy(),
        )  # fmt: skip
    (folder / "at-s0").mkdir()
    for epoch, steps in ((1, 10), (2, 60)):
        save_file(fitted(steps).state_dict(), folder / "at-s0" / f"epoch-{epoch}.safetensors")
    return folder


@pytest.fixture(scope="session")
def answer(checkpoints: Path) -> dict:
    """The result of `flatguard geometry robust-flatness` on them."""
    assert robust_flatness(checkpoints, "--quiet") == 0
    return json.loads((checkpoints / "out" / "robust-flatness.json").read_text())
