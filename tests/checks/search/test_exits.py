"""Whether what leaves torch comes back into the logits."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flatguard.checks.search.exits import exits_matter


class Outside(nn.Module):
    """A linear model; what is done in NumPy depends on `how`."""

    def __init__(self, how: str):
        super().__init__()
        self.layer, self.how = nn.Linear(12, 3), how
        self.seen: dict[bytes, bool] = {}

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self.how == "key":
            self.seen[flat.detach().numpy().tobytes()] = True
        if self.how == "list":
            self.seen[str(flat.detach().tolist()).encode()] = True
        if self.how == "rounded":
            flat = torch.from_numpy(np.round(flat.detach().numpy() * 4) / 4)
        if self.how == "vote":
            votes = self.layer(flat).detach().numpy().argmax(1)
            return nn.functional.one_hot(torch.from_numpy(votes), 3).float()
        if self.how == "item" and flat.sum().item() > 1e9:
            return torch.zeros(len(x), 3)
        return self.layer(flat)


@pytest.mark.parametrize(
    ("how", "matters"),
    [("key", False), ("list", False), ("item", False), ("rounded", True), ("vote", True)],
)
def test_only_what_comes_back_matters(how: str, matters: bool) -> None:
    torch.manual_seed(0)
    images, model = torch.rand(16, 3, 2, 2), Outside(how).eval()
    state = torch.get_rng_state()
    assert exits_matter(model, images) is matters
    assert torch.equal(torch.get_rng_state(), state)
