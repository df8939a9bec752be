"""Figure 4: rescaled variants have the same landscape and flatness."""

import torch
from support.digits import digits, digits_net
from support.weight_space import fitted

from flatguard.studies.reproduce import reproduce


def test_figure_4_holds_on_a_small_network() -> None:
    images, labels = digits()
    net = digits_net()
    net.load_state_dict(fitted().state_dict())
    found = reproduce("stutz-fig4", [net.eval()], data=(images[:8], labels[:8]), device="cpu")
    named = {claim.name: claim for claim in found.claims}
    for name in ("landscape-x2", "flatness-x2", "landscape-x0.5", "flatness-x0.5"):
        assert named[name].verdict == "agrees"
        assert named[name].ours == 0.0
    assert named["normalisation-matters"].verdict == "agrees"
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    alone = reproduce("stutz-fig4", [flat], data=(images[:8], labels[:8]), device="cpu")
    assert {claim.verdict for claim in alone.claims} == {"not-measured"}
