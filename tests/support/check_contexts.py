"""Check contexts around small models: a finished run, and its target."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from support.architectures import tiny
from torch import Tensor, nn

import flatguard
from flatguard.checks.context import CheckContext
from flatguard.data.arrays import ArrayDataset
from flatguard.execution.context import resolve
from flatguard.execution.progress import Silent
from flatguard.geometry.budget import Norm
from flatguard.targets import make_target

DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}


@dataclass(frozen=True)
class Weak:
    """An attack that leaves nearly everything right."""

    name: str
    args: dict[str, Any]


WEAK = {
    "Linf": Weak("foolbox:LinfAdditiveUniformNoiseAttack", {}),
    "L2": Weak("foolbox:L2AdditiveUniformNoiseAttack", {}),
    "L1": Weak(
        "foolbox:SparseL1DescentAttack", {"steps": 1, "rel_stepsize": 1e-6, "random_start": False}
    ),
}


def context_of(
    model: nn.Module, images: Tensor, labels: Tensor, attack: str, **fields: Any
) -> CheckContext:
    """Audit a model with no checks, and load it again."""
    folder = Path(tempfile.mkdtemp()) / "run"
    run = flatguard.evaluate(
        model, attack, data=(images, labels), out=folder, checks="none", **fields
    )
    dataset = ArrayDataset(images, labels.numpy(), "images from Python")
    context = resolve(run.request, make_target(model, type(model).__name__, "a test"), dataset)
    return CheckContext(context, run, Silent())


class Linear(nn.Module):
    """Two classes, z = ±w·(x - 1/2)."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.head = nn.Linear(weight.numel(), 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.stack([weight, -weight]))
            self.head.bias.copy_(torch.stack([-weight.sum() / 2, weight.sum() / 2]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


def linear(norm: Norm) -> tuple[CheckContext, Tensor]:
    """A linear model audited in this norm, and how far its survivors are from the boundary."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, generator=generator)
    images = 0.3 + 0.4 * torch.rand(24, 3, 4, 4, generator=generator)
    score = (images.flatten(1) - 0.5) @ weight
    labels = (score < 0).long()
    dual = torch.linalg.vector_norm(weight, ord=DUAL[norm])
    reach = score.abs() / dual
    # Between two samples: whether the median itself is reached would be a matter of rounding.
    eps = float(reach.sort().values[len(reach) // 2 - 1 : len(reach) // 2 + 1].mean())
    audited = WEAK[norm]
    context = context_of(
        Linear(weight), images, labels, audited.name, eps=eps, attack_args=audited.args
    )
    return context, reach[torch.from_numpy(context.survivors.copy())]


def trained(images: Tensor, labels: Tensor) -> nn.Module:
    """A tiny network that knows these few images by heart."""
    torch.manual_seed(0)
    net = tiny().train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels, label_smoothing=0.1).backward()
        optimizer.step()
    return net.eval()
