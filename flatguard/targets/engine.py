"""A faster twin of a model for the attack's search; every result is measured on the model itself.

The twin is a copy that is computed differently (`--engine`): batch norm folded, in channels-last
layout, compiled, or in bfloat16 or float16. Each option is proven on a few real images: the twin
runs, its logits are the model's up to rounding, and it gives gradients where the model does. An
option that does not work for a model is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from flatguard.environment.engines import (
    BFLOAT16,
    CHANNELS_LAST,
    COMPILE,
    ENGINES,
    FLOAT16,
    FOLD_BATCHNORM,
)
from flatguard.environment.randomness import preserved, seeded
from flatguard.environment.torch_state import own_state
from flatguard.errors import ModelError, UsageError, one_line, ran_out_of_memory
from flatguard.targets.compiled import CompiledBody, check_compiler, compiled
from flatguard.targets.final_map import find_final_map
from flatguard.targets.first_call import first_look
from flatguard.targets.folding import fold_batchnorm
from flatguard.targets.head import Head, HeadSearch, relative_mismatch
from flatguard.targets.initial import copy_of
from flatguard.targets.precision import own_precision
from flatguard.targets.reduced import ChannelsLast, Reduced
from flatguard.targets.restored import restored
from flatguard.targets.target import Target

_ROUNDING, _REDUCED = 1e-2, 0.25
"""The largest |z - z'| over the largest centred |z| of a twin in the model's own precision, where
a GPU may use TF32 in one layout only, and of a twin in a reduced one."""

_PRECISIONS = {BFLOAT16: torch.bfloat16, FLOAT16: torch.float16}


@own_state()
def faster_twin(target: Target, engine: Sequence[str], images: Tensor) -> Target:
    """The model that the attack searches in place of the target.

    Its head is found anew, in the twin; it has none where `compile` hides it. Its parameters need
    no gradient, which saves the passes for them.

    Args:
        target: prepared, on the images' device; it is left as it is.
        engine: options, from `parse_engine`.
        images: a few real images, `(n, channels, height, width)`.

    Raises:
        UsageError: an option does not work for this model, with the reason.

    Cost: a copy of the weights, and a few passes for each option; `compile` takes a minute.
    """
    with preserved(images.device):
        with restored(target.model):
            expected, is_differentiable = _answers(target, images)
            model = _copied(target, engine[0])
        for option in [name for name in ENGINES if name in engine]:
            with _refused(option, target):
                model = _STEPS[option](model, images, target)
                twin = replace(target, model=model)
                logits, has_gradient = _answers(twin, images)
                _check_logits(option, expected, logits)
                if is_differentiable and not has_gradient:
                    raise UsageError("the twin gives no gradient in its input")
        with _refused(engine[0], target):
            search = _head_of(model, images, target)
    return replace(twin, head=search.head, head_reason=search.reason)


def _answers(target: Target, images: Tensor) -> tuple[Tensor, bool]:
    """The logits, `(n, k)`, and whether any input gradient of them is not zero."""
    device = images.device
    with seeded(0, device):
        logits = first_look(target, images)
    with seeded(0, device), torch.enable_grad():
        inputs = images.clone().requires_grad_()
        output = target.model(inputs)
        if not output.requires_grad:
            return logits, False
        weights = torch.linspace(-1.0, 1.0, output.shape[1], device=device, dtype=output.dtype)
        (gradient,) = torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True)
    return logits, gradient is not None and bool((gradient != 0).any())


def _check_logits(option: str, expected: Tensor, logits: Tensor) -> None:
    allowed = _REDUCED if option in _PRECISIONS else _ROUNDING
    if logits.shape != expected.shape:
        raise UsageError(f"the twin returns {tuple(logits.shape)}, not {tuple(expected.shape)}")
    moved = float(relative_mismatch(expected, logits, 1.0).max())
    if not moved <= allowed:
        raise UsageError(
            f"the twin's logits differ from the model's by {moved:.2g} of their size, and "
            f"{allowed:g} is allowed"
        )


def _copied(target: Target, option: str) -> nn.Module:
    with _refused(option, target):
        model = copy_of(target.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@contextmanager
def _refused(option: str, target: Target) -> Iterator[None]:
    """Turn any error into one line that names the option; exhausted memory stays what it is."""
    try:
        yield
    except Exception as error:  # a model, or torch's compiler, may raise anything
        if ran_out_of_memory(error):
            raise
        kind = "" if isinstance(error, UsageError | ModelError) else f"{type(error).__name__}: "
        raise UsageError(
            f"--engine {option} does not work for {target.name}: {kind}{one_line(error)}; leave "
            "it out"
        ) from error


def _folded(model: nn.Module, images: Tensor, target: Target) -> nn.Module:
    if not fold_batchnorm(model, images):
        raise UsageError("no layer hands its output to a batch norm in eval mode alone")
    return model


def _in_channels_last(model: nn.Module, images: Tensor, target: Target) -> nn.Module:
    if images.ndim != 4:
        raise UsageError(f"expected images (channels, height, width), got {tuple(images.shape)}")
    return ChannelsLast(model)


def _compiled(model: nn.Module, images: Tensor, target: Target) -> nn.Module:
    check_compiler(images.device)
    return compiled(model, target.head, images)


def _reduced(dtype: torch.dtype) -> Callable[[nn.Module, Tensor, Target], nn.Module]:
    def step(model: nn.Module, images: Tensor, target: Target) -> nn.Module:
        if own := own_precision(model):
            raise UsageError(f"its weights are in {' and '.join(own)}, not in float32")
        return Reduced(model, dtype)

    return step


_STEPS: dict[str, Callable[[nn.Module, Tensor, Target], nn.Module]] = {
    FOLD_BATCHNORM: _folded,
    CHANNELS_LAST: _in_channels_last,
    COMPILE: _compiled,
    BFLOAT16: _reduced(torch.bfloat16),
    FLOAT16: _reduced(torch.float16),
}


def _head_of(model: nn.Module, images: Tensor, target: Target) -> HeadSearch:
    """The twin's head. Hooks inside of a compiled part would be compiled, too: none is set there.

    A target without a head has a twin without one: a run's tables measure one thing.
    """
    if target.head is None:
        return HeadSearch(None, target.head_reason)
    for name, module in model.named_modules():
        if isinstance(module, CompiledBody):
            layer = module.layer
            if layer is None:
                return HeadSearch(None, "the search's model is compiled as one, with its head")
            return HeadSearch(Head(f"{name}.layer".lstrip("."), layer, 1.0), None)
    return find_final_map(model, images)
