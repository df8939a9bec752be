"""Hooks of flatguard's own on a caller's model, found by their class."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

H = TypeVar("H")


def hook_of(model: nn.Module, kind: type[H]) -> H | None:
    """The model's hook of this class; None if it has none."""
    hooks = (*model._forward_pre_hooks.values(), *model._forward_hooks.values())
    return next((hook for hook in hooks if isinstance(hook, kind)), None)


def forget_hooks(model: nn.Module, kind: type[object]) -> None:
    """Remove the model's hooks of this class."""
    for hooks, others in (
        (model._forward_pre_hooks, (model._forward_pre_hooks_with_kwargs,)),
        (model._forward_hooks, ()),
    ):
        for key in [key for key, hook in hooks.items() if isinstance(hook, kind)]:
            del hooks[key]
            for other in others:
                other.pop(key, None)
