"""Isolates calls of a model, so that they have no side effects on the caller.

A forward pass may write into its input, or switch torch's gradients off permanently. An attack in
the middle of its search would go on with that tensor and that setting. So the model gets a copy of
its input, and torch's settings are restored after each call.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy

from flatguard.environment.torch_state import TorchState
from flatguard.errors import ModelError
from flatguard.targets.parts import parts_of, plain_attributes


class _Calls(threading.local):
    """The calls that this thread has not finished, the innermost last."""

    def __init__(self) -> None:
        self.begun: list[tuple[nn.Module, TorchState, bool]] = []


_calls = _Calls()


def isolate_calls(model: nn.Module) -> None:
    """Make each call of the model copy its input tensors and restore torch's settings.

    Two hooks do that; copies of the model have them, too. A second call changes nothing. The
    copies are part of the graph, so that gradients and logits are bit-identical.

    Cost: a copy of the input, and about 10 µs per call.
    """
    if _before_call in model._forward_pre_hooks.values():
        return
    make_ordinary(model)
    model.register_forward_pre_hook(_before_call, prepend=True, with_kwargs=True)
    model.register_forward_hook(_after_call, always_call=True)


def _before_call(
    module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    _calls.begun.append((module, TorchState.now(), torch.is_inference_mode_enabled()))
    copies = tuple(_copy(value) for value in inputs)
    return copies, {name: _copy(value) for name, value in keywords.items()}


def _after_call(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    if not _calls.begun or _calls.begun[-1][0] is not module:
        return None  # another hook raised before the call began
    _, state, inference = _calls.begun.pop()
    state.apply()
    if torch.is_inference_mode_enabled() != inference:
        raise ModelError(
            f"the forward pass of {type(module).__name__} enters or leaves torch.inference_mode() "
            "for good; use it as a decorator or in a with statement"
        )
    if not inference and isinstance(output, Tensor) and output.is_inference():
        return output.clone()  # attacks compute with it in place, which torch refuses
    return None


def call_watched(model: nn.Module, images: Tensor) -> Any:
    """Call the model without gradients, and see whether it can be called with gradients, too.

    A model that computes a part in inference mode and goes on outside of it fails where gradients
    are on. Gradients are then switched off for each of its calls; `gradients_are_off` says so.
    """
    found: list[bool] = []

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if any(_is_inference(value) for value in (*inputs, output)):
            found.append(True)

    handle = register_module_forward_hook(watch)
    try:
        with torch.no_grad():
            output = model(images)
    finally:
        handle.remove()
    if found and not gradients_are_off(model):
        try:
            with torch.enable_grad():
                model(images[:1])
        except RuntimeError as error:
            if "Inference tensors cannot be saved" not in str(error):
                raise
            model.register_forward_pre_hook(_switch_gradients_off)
    return output


def gradients_are_off(model: nn.Module) -> bool:
    """Whether each call of the model has gradients switched off; see `call_watched`."""
    return _switch_gradients_off in model._forward_pre_hooks.values()


def _switch_gradients_off(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    torch.set_grad_enabled(False)  # until `_after_call`


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def make_ordinary(model: nn.Module) -> None:
    """Replace tensors that were made in inference mode, which autograd refuses.

    Raises:
        ModelError: they belong to a script, whose tensors cannot be replaced.
    """
    parts = list(parts_of(model))
    if not any(_is_inference(part.value) for part in parts):
        return
    made: dict[int, Tensor] = {}
    for part in parts:
        value = part.value
        if isinstance(value, torch.jit.ScriptModule):
            _refuse_script(value)
        elif isinstance(value, nn.Module):
            held = vars(value)
            for place in (held["_parameters"], held["_buffers"]):
                place.update({name: _ordinary(each, made) for name, each in place.items()})
            held.update({n: _ordinary(v, made) for n, v in plain_attributes(value).items()})
        elif isinstance(value, dict):
            value.update({key: _ordinary(each, made) for key, each in value.items()})
        elif isinstance(value, list):
            value[:] = [_ordinary(each, made) for each in value]


def _is_inference(value: object) -> bool:
    return isinstance(value, Tensor) and not is_lazy(value) and value.is_inference()


def _refuse_script(script: torch.jit.ScriptModule) -> None:
    if any(tensor.is_inference() for tensor in [*script.parameters(), *script.buffers()]):
        raise ModelError(
            f"the script {script.original_name} was made inside torch.inference_mode() and cannot "
            "be differentiated; make it outside"
        )


def _ordinary(value: Any, made: dict[int, Tensor]) -> Any:
    """The value itself, or a copy for a tensor made in inference mode, also in tuples."""
    if isinstance(value, tuple) and any(isinstance(each, Tensor) for each in value):
        parts = [_ordinary(each, made) for each in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if not _is_inference(value):
        return value
    if id(value) not in made:
        made[id(value)] = _copied(value)
    return made[id(value)]


def _copied(value: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        plain = value.detach().clone()
        if isinstance(value, nn.Parameter):
            return nn.Parameter(plain, value.requires_grad)
        return plain.requires_grad_(value.requires_grad)
