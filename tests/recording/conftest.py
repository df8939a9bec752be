"""The network that these tests attack."""

import pytest
import torch
from support.architectures import tiny
from torch import nn


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return tiny().eval()
