"""The twin of a model whose output is chosen between branches (`flatguard.switches`).

The gradient of such a model is that of the branch that it chooses here. It leads to where this
branch is wrong, and there the model may choose another one. The twin shows all branches at once,
while the model itself decides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.attacks.survivors import Survivors
from flatguard.errors import FlatguardError, ran_out_of_memory
from flatguard.geometry.ball import random_point
from flatguard.geometry.budget import Budget
from flatguard.switches.branches import Branch, Switch, find_switch
from flatguard.twins.outputs import Outputs, plain

_FEW = 4
"""Samples on which branches are looked for, at the clean image and at a random point."""

_SHADE = 0.8


def switch_of(survivors: Survivors, images: Tensor, rows: Tensor, budget: Budget) -> Switch:
    """The branches of the model's output, if it is chosen between some and jumps between them.

    Args:
        survivors: counts the passes.
        images: clean, `(m, ...)`, of these rows.
        rows: the samples, `(m,)`.
        budget: with a radius.

    Cost: four passes over at most eight images where there is no gate.
    """
    images, rows = images[:_FEW], rows[:_FEW]
    if len(rows) < 2:
        return Switch()
    seen = torch.cat([images, random_point(images, budget.radius, budget.norm)])
    with survivors.aside():
        found = find_switch(survivors.model, seen, _SHADE * seen.roll(1, dims=0))
    survivors.passes += (2 * found.runs + 2) * len(seen)
    return found if found.jumps else Switch()


class MeanOfBranches:
    """Decides as the model does, and shows the mean of its branches.

    Each branch counts with its logits over their standard deviation.

    Args:
        survivors: counts the passes.
        switch: with branches.

    Cost: a forward pass of the model and of each branch.
    """

    def __init__(self, survivors: Survivors, switch: Switch):
        self._survivors = survivors
        self._branches = [switch.branches[number] for number in switch.alive]

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs for a batch."""
        with torch.no_grad():
            decides = self._survivors.model(images)
        with self._survivors.aside():
            tried = [_if_it_runs(branch, images) for branch in self._branches]
        self._survivors.passes += 2 * len(self._branches) * len(images)
        shown = [_spread(logits) for logits in tried if logits is not None]
        if not shown:
            return plain(self._survivors.model)(images)
        return Outputs(decides, torch.stack(shown).mean(dim=0))


def _if_it_runs(branch: Branch, images: Tensor) -> Tensor | None:
    """The logits of a branch; a user's model may fail where its gates are forced."""
    try:
        return branch(images).logits
    except Exception as error:
        if isinstance(error, FlatguardError) or ran_out_of_memory(error):
            raise
        return None


def _spread(logits: Tensor) -> Tensor:
    return logits / logits.detach().std(dim=1, keepdim=True).clamp_min(1e-12)
