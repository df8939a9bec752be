"""A model that `torch.compile` compiles, with its head left outside, so that it can be recorded.

The compiler takes hooks into what it compiles. Recorders come and go with the blocks, so that no
hook may be inside: the body is compiled without the head, which runs by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flatguard.errors import UsageError, one_line
from flatguard.targets.head import (
    RELATIVE_TOLERANCE,
    FinalMap,
    Head,
    LinearLike,
    relative_mismatch,
)
from flatguard.targets.hooks import hook_of
from flatguard.targets.outputs import Reading
from flatguard.targets.reduced import ChannelsLast


def check_compiler(device: torch.device) -> None:
    """Compile a sum, to see whether this machine can.

    Raises:
        UsageError: it cannot, with torch's reason and what is needed.
    """
    try:
        torch.compile(_sum_of_squares)(torch.ones(3, device=device))
    except Exception as error:  # torch raises its own, its compiler's and the system's errors
        needed = "a C++ compiler such as g++" if device.type == "cpu" else "triton and its compiler"
        raise UsageError(
            f"torch.compile does not run on this machine ({type(error).__name__}: "
            f"{one_line(error)}); it needs {needed}"
        ) from error


def _sum_of_squares(values: Tensor) -> Tensor:
    return (values * values).sum()


class CompiledBody(nn.Module):
    """A compiled model without its head, and the head.

    Args:
        body: gives the head's input; its `forward` is compiled here.
        layer: the head; None where the body gives the logits itself.
    """

    def __init__(self, body: nn.Module, layer: LinearLike | None):
        super().__init__()
        self.body = body
        self.layer = layer
        self.training = False
        core: Any = body.model if isinstance(body, ChannelsLast) else body
        # Not the module itself: flatguard's own hooks on it are Python, and run outside.
        core.forward = torch.compile(core.forward)

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        output: Tensor = self.body(images)
        return output if self.layer is None else self.layer(output)


def compiled(model: nn.Module, head: FinalMap | None, images: Tensor) -> CompiledBody:
    """The model, compiled when it is called next.

    Args:
        model: a copy of the target's, maybe in channels-last layout; it is changed.
        head: of the target.
        images: a few real images, to prove that the head is the last operation.
    """
    core = model.model if isinstance(model, ChannelsLast) else model
    layer = _split_off(core, head, images)
    return CompiledBody(model, layer)


def _split_off(core: nn.Module, head: FinalMap | None, images: Tensor) -> LinearLike | None:
    """The head's layer, which an identity replaces in the model; None where it must stay."""
    if not isinstance(head, Head) or head.scale != 1.0 or head.is_single or not head.name:
        return None
    layer = core.get_submodule(head.name)  # the copy's own
    if hook_of(core, Reading) is not None or not isinstance(layer, LinearLike):
        return None
    with torch.no_grad():
        expected = core(images)
        core.set_submodule(head.name, nn.Identity())
        try:
            found = layer(core(images))
        except Exception:  # whatever a model does with its head's output
            found = None
    if isinstance(found, Tensor) and found.shape == expected.shape:
        is_last = bool((relative_mismatch(expected, found, 1.0) <= RELATIVE_TOLERANCE).all())
    else:
        is_last = False
    if is_last:
        return layer
    core.set_submodule(head.name, layer)
    return None
