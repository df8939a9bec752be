"""Counts what makes the host wait for a device, on a machine that has none.

On an accelerator, the host only enqueues work, until it needs a value: then it waits until the
device has finished everything before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

_WAITING = {
    "_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2",
    "unique_dim", "unique_consecutive", "bincount", "allclose",
}  # fmt: skip
"""Operators whose result, or the size of it, the host needs."""

_MASKED = (torch.bool, torch.uint8)


class HostWaits:
    """Counts the waits inside, by name, in `found`.

    Beside operators with a result for the host, a wait is: an index by a mask; a number among the
    tensors of `where`, which is copied to the device first; and every blocking copy to the host.
    A tensor that was sent without blocking is on the host, and so is what was copied before.
    """

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._modes = (_Operators(self.found), _Copies(self.found))

    @property
    def total(self) -> int:
        """The number of waits."""
        return self.found.total()

    def __enter__(self) -> HostWaits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Operators(TorchDispatchMode):
    def __init__(self, found: Counter[str]):
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if _waits(name, func._overloadname, args):
            self._found[name] += 1
        return func(*args, **(kwargs or {}))


def _waits(name: str, overload: str, args: tuple[Any, ...]) -> bool:
    if name in ("index", "index_put", "_index_put_impl", "_unsafe_index"):
        return any(index is not None and index.dtype in _MASKED for index in args[1])
    if name == "where":
        shapes = [arg.ndim for arg in args if isinstance(arg, Tensor)]
        return min(shapes) == 0 < max(shapes)
    if name == "repeat_interleave":
        return overload == "Tensor"
    return name in _WAITING


class _Copies:
    """Copies to the host, which on a CPU are no operators; hooks in a backward pass count, too."""

    def __init__(self, found: Counter[str]):
        self._found = found
        self._on_host = WeakIdKeyDictionary()

    def __enter__(self) -> None:
        for name in ("cpu", "to", "numpy", "tolist"):
            setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def __exit__(self, *error: Any) -> None:
        for name in ("cpu", "to", "numpy", "tolist"):
            delattr(Tensor, name)  # the inherited method is back

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Tensor, *args: Any, **keywords: Any) -> Any:
            result = method(tensor, *args, **keywords)
            if name != "to" or _is_host(keywords.get("device", args[0] if args else None)):
                if not keywords.get("non_blocking", False) and tensor not in self._on_host:
                    self._found[name] += 1
                for copied in (tensor, result):
                    if isinstance(copied, Tensor):
                        self._on_host[copied] = True
            return result

        return counted


def _is_host(device: Any) -> bool:
    """Whether the copy is to the host by name; `torch.device("cpu")` is the model's device here."""
    return isinstance(device, str) and device == "cpu"
