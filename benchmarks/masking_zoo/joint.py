"""Stand-ins for models with a switch: all branches wrong at once, or one of them and its gate.

They are classifiers, so that every loss of the reference applies. Let m be a class's logit minus
the best other one in a branch. The score of the class is its largest m over the branches: it is
negative only where no branch decides for that class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.masking_zoo.attacks import StandIn
from benchmarks.masking_zoo.defences.switches import Switch


def margins(logits: Tensor) -> Tensor:
    """Each class's logit minus the best other one's, over the spread of the logits."""
    top = logits.topk(2, dim=1)
    is_top = torch.arange(logits.shape[1]) == top.indices[:, :1]
    best_other = torch.where(is_top, top.values[:, 1:], top.values[:, :1])
    return (logits - best_other) / logits.detach().std(dim=1, keepdim=True).clamp_min(1e-9)


class AllBranches(nn.Module):
    """The margin of each class in the branch that favours it most."""

    def __init__(self, switch: Switch):
        super().__init__()
        self.switch = switch

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        found = [margins(z) for z in self.switch.branches(x)]
        return torch.stack(found).amax(dim=0)


class MeanBranch(nn.Module):
    """The mean of the branches' margins."""

    def __init__(self, switch: Switch):
        super().__init__()
        self.switch = switch

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return torch.stack([margins(z) for z in self.switch.branches(x)]).mean(dim=0)


class OneBranch(nn.Module):
    """One branch alone."""

    def __init__(self, switch: Switch, number: int):
        super().__init__()
        self.switch, self.number = switch, number

    def forward(self, x: Tensor) -> Tensor:
        """Its logits."""
        return self.switch.branches(x)[self.number]


class Inside(nn.Module):
    """One branch and its gate: the model's answer is safe while the gate is elsewhere."""

    def __init__(self, switch: Switch, number: int):
        super().__init__()
        self.switch, self.number = switch, number

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        inside = self.switch.closeness(x)[self.number]
        outside = (-inside / inside.detach().std().clamp_min(1e-9))[:, None]
        scores = margins(self.switch.branches(x)[self.number])
        with torch.no_grad():
            answer = self.switch(x).argmax(dim=1, keepdim=True)
        is_answer = torch.arange(scores.shape[1]) == answer
        return torch.where(is_answer, torch.maximum(scores, outside), scores)


def switched(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """All branches, their mean, each of them, each with its gate, and the model itself."""
    assert isinstance(model, Switch)
    with torch.no_grad():
        image = torch.rand(2, *_shape_of(model))
        count = len(model.branches(image))
        gated = len(model.closeness(image))
    modules: list[nn.Module] = [AllBranches(model), MeanBranch(model)]
    modules += [OneBranch(model, number) for number in range(count)]
    modules += [Inside(model, number) for number in range(gated)]
    return [*(StandIn(module) for module in modules), StandIn(model)]


def _shape_of(model: nn.Module) -> tuple[int, ...]:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return (1, 8, 8) if first.in_channels == 1 else (3, 32, 32)
