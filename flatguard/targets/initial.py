"""The state of a model before its first call, for models that keep something between calls."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from flatguard.targets.head import Head


def initial_copy(model: nn.Module) -> nn.Module | None:
    """A copy in the model's state of now; None if the model cannot be copied.

    The copy and the model share their parameters, so it takes hardly any memory. Buffers,
    attributes and containers are its own.
    """
    try:
        # What deepcopy finds in its memo it does not copy.
        return copy.deepcopy(model, {id(each): each for each in model.parameters()})
    except Exception:  # a model may raise anything
        return None


def with_scaled_head(initial: nn.Module, head: Head) -> nn.Module:
    """The same copy with the weights of a head that was scaled in another copy."""
    layer: Any = initial.get_submodule(head.name)
    layer.weight, layer.bias = head.module.weight, head.module.bias
    return initial


class FreshEachCall(nn.Module):
    """Answers each call with a new copy of the initial state, as a new process would.

    It decides as the model does on its first call, and depends on no call before.

    Args:
        initial: from `initial_copy`; it is never called itself.

    Cost: a copy of everything but the parameters a call.
    """

    def __init__(self, initial: nn.Module):
        super().__init__()
        self.initial = initial
        self.eval()

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """The answer of a model that was not called before."""
        fresh = initial_copy(self.initial)
        assert fresh is not None, "it was copied before"
        return fresh(*inputs, **keywords)
