"""The largest singular value against dense Jacobians."""

import torch
from support.architectures import tiny
from torch import nn

from flatguard.studies.walter.lipschitz import features_of, local_lipschitz
from flatguard.targets.head import find_head


def test_a_linear_layer_has_its_spectral_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, 3)).eval()
    images = torch.rand(4, 3, 2, 2)
    head = find_head(model, images).head
    assert head is not None
    found = local_lipschitz(model, head, images, images + 0.1, seed=0, steps=60)
    true = torch.linalg.matrix_norm(model[1].weight, ord=2)
    torch.testing.assert_close(found, true.expand(4).detach(), rtol=1e-4, atol=0)


def test_a_network_has_its_largest_jacobian_on_the_segment() -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    images, ends = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    head = find_head(model, images).head
    assert head is not None
    before = torch.random.get_rng_state()
    found = local_lipschitz(model, head, images, ends, seed=0, points=3, steps=80)
    assert torch.equal(before, torch.random.get_rng_state())
    for index in range(3):
        norms = []
        for share in (0.0, 0.5, 1.0):
            at = torch.lerp(images[index], ends[index], share)[None]
            jacobian = torch.autograd.functional.jacobian(lambda x: features_of(model, head, x), at)
            norms.append(torch.linalg.matrix_norm(jacobian.flatten(2).squeeze(), ord=2))
        torch.testing.assert_close(found[index], torch.stack(norms).amax(), rtol=1e-3, atol=0)
        few = local_lipschitz(model, head, images, ends, seed=0, points=3, steps=2)
        assert float(few[index]) <= float(found[index]) * (1 + 1e-5)  # a lower bound
