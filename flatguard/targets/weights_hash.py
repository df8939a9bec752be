"""The hash of a model's weights: of all tensors that torch registers, wherever the module is held.

Covered are parameters and buffers, persistent or not, of every module, also of one in a plain
list; quantised and packed parameters; and the extra state of modules. A tensor in a plain attribute
may be weights or the result of the last call, so it is not covered: `not_covered` names it, and
runs compare the model's answers on their first images as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.targets.parts import parts_of


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    saved = model.state_dict()
    for name, value in sorted(saved.items()):
        _add(digest, name, value)
    for name, value in sorted(_beside(model, set(saved)).items()):
        _add(digest, name, value)
    return digest.hexdigest()


def not_covered(model: nn.Module) -> tuple[str, ...]:
    """Where the model holds tensors or arrays that no module registers."""
    registered = {id(tensor) for module in _modules(model).values() for tensor in _own(module)}
    return tuple(
        part.path
        for part in parts_of(model)
        if isinstance(part.value, (Tensor, np.ndarray, torch.ScriptObject))
        and id(part.value) not in registered
        and not part.path.endswith("_packed_params")
    )


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that the model holds, by its path."""
    return {part.path: part.value for part in parts_of(model) if isinstance(part.value, nn.Module)}


def _own(module: nn.Module) -> list[Tensor]:
    """The tensors that a module itself registers."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _beside(model: nn.Module, saved: set[str]) -> dict[str, Any]:
    """What `state_dict` leaves out: buffers that are not persistent, and modules in plain lists."""
    registered = {id(module) for module in model.modules()}
    found: dict[str, Any] = {}
    for path, module in _modules(model).items():
        prefix = f"{path}." if path else ""
        if id(module) not in registered and not isinstance(module, torch.jit.ScriptModule):
            own = {f"{prefix}{name}": v for name, v in _saved_by(module).items()}
            found |= own
        for name, buffer in module.named_buffers(recurse=False):
            if f"{prefix}{name}" not in saved:
                found[f"{prefix}{name}"] = buffer
    return found


def _saved_by(module: nn.Module) -> dict[str, Any]:
    """What a module itself saves, without its children."""
    saved: dict[str, Any] = {}
    module._save_to_state_dict(saved, "", keep_vars=True)
    return saved


def _add(digest: _Digest, name: str, value: object) -> None:
    """Add a value under a name; one that has no bytes of its own adds its type only."""
    if isinstance(value, Tensor):
        _add_tensor(digest, name, value)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        _add_tensor(digest, name, torch.from_numpy(np.ascontiguousarray(value)))
    elif isinstance(value, Mapping):
        for key, each in sorted(value.items(), key=lambda pair: str(pair[0])):
            _add(digest, f"{name}[{key}]", each)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            _add(digest, f"{name}[{index}]", each)
    elif isinstance(value, (bool, int, float, str, bytes, torch.dtype, torch.device)):
        digest.update(f"{name}\0{type(value).__name__}\0{value!r}\0".encode())
    elif value is not None:
        digest.update(f"{name}\0{type(value).__name__}\0".encode())


def _add_tensor(digest: _Digest, name: str, value: Tensor) -> None:
    plain = value.detach().cpu()
    if plain.is_quantized:
        _add(digest, f"{name}.scale", _scales(plain))
        plain = plain.int_repr()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    plain = plain.contiguous()
    digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())


def _scales(tensor: Tensor) -> list[Any]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [tensor.q_scale(), tensor.q_zero_point()]
    return [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
