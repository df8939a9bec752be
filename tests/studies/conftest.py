"""A plain network for digits, sure of itself, and the images it was not trained on."""

import pytest
import torch
import torch.nn.functional as F
from support.digits import TRAINING, digits, digits_net
from torch import Tensor, nn

Data = tuple[Tensor, Tensor]


@pytest.fixture(scope="session")
def plain_digits() -> tuple[nn.Module, Data]:
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
