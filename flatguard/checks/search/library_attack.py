"""An attack of a wrapped library as an attempt of a check, with its forward passes counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from flatguard.attacks import build_attack
from flatguard.checks.context import CheckContext, Meter, Rows
from flatguard.checks.search.attempts import Method


def by_attack(context: CheckContext, name: str, args: Mapping[str, Any]) -> Method:
    """An attempt's method: the attack of this name on the target itself.

    Args:
        context: of the checks.
        name: of the attack.
        args: its arguments.
    """

    def method(rows: Rows) -> tuple[Tensor, Tensor]:
        attack = build_attack(name, context.budget, context.evaluation.num_classes, dict(args))
        counter = context.model.register_forward_pre_hook(_counting(context.meter))
        try:
            seed = context.seed(name, int(rows.sample[0]))
            images, labels = rows.images.contiguous(), rows.labels
            found = attack.perturb(context.model, images, labels, seed).images
        finally:
            counter.remove()
        return found, context.fools(found.to(context.device), rows)

    return method


def _counting(meter: Meter) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        meter.add(len(inputs[0]))

    return hook
