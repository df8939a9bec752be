"""Models in another precision than float32, on float32 images.

The attack works on float32 images. A hook in front of such a model casts them, so that gradients
come back in float32, and every call, also the one that verifies a result, is in the model's own
precision. The cast follows the model's tensors: a copy in float64 gets float64 images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flatguard.targets.hooks import forget_hooks

TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Cast:
    """A forward pre-hook that casts images to the type that one of the model's tensors has now.

    Attributes:
        tensor: its name; None where the model has no tensor that torch registers.
        dtype: its type at the first look.
    """

    tensor: str | None
    dtype: torch.dtype

    def __call__(
        self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with every floating-point tensor cast."""
        dtype = self._type_in(module)
        cast = tuple(_cast(value, dtype) for value in inputs)
        return cast, {name: _cast(value, dtype) for name, value in keywords.items()}

    def _type_in(self, module: nn.Module) -> torch.dtype:
        if self.tensor is None:
            return self.dtype
        owner, _, name = self.tensor.rpartition(".")
        found: Tensor = getattr(module.get_submodule(owner), name)
        return found.dtype


def casts_for(model: nn.Module, images: Tensor) -> list[Cast]:
    """The casts to try where a model does not take these images: one a type of its tensors."""
    found = {dtype: Cast(name, dtype) for name, dtype in reversed(list(_types(model)))}
    if not found:
        found = {dtype: Cast(None, dtype) for dtype in TYPES}
    found.pop(images.dtype, None)
    return list(reversed(found.values()))


def cast_images(model: nn.Module, cast: Cast) -> None:
    """Cast the images of each call of the model, before all other hooks."""
    forget_hooks(model, Cast)
    model.register_forward_pre_hook(cast, prepend=True, with_kwargs=True)


def never_takes(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the model's tensors are all of other types than this one."""
    types = {found for _, found in _types(model)}
    return bool(types) and dtype not in types


def own_precision(model: nn.Module) -> tuple[str, ...]:
    """The types of the model's parameters, float32 excepted: `bfloat16`."""
    types = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    return tuple(sorted(name_of(dtype) for dtype in types - {torch.float32}))


def name_of(dtype: torch.dtype) -> str:
    """`bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _types(model: nn.Module) -> Iterator[tuple[str, torch.dtype]]:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not is_lazy(value) and value.dtype in TYPES:
            yield name, value.dtype


def _cast(value: Any, dtype: torch.dtype) -> Any:
    is_image = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if is_image else value
