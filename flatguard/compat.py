"""Makes torchattacks, autoattack, robustbench and foolbox importable in one process.

An import hook acts only when one of the broken packages is imported, and only where it
is broken; whatever already works is left alone. Nothing else in flatguard patches
anything. This module imports no torch: `import flatguard` is part of every pytest run on
a machine that has the plugin.

What is mended, and when:

* `autoattack` is missing: the registry has the fork `pyautoattack` only, whose
  `run_standard_evaluation` takes `batch_size` and returns a tuple. The name resolves to
  the fork behind the original's signature. A real `autoattack` wins.
* `pkg_resources` is missing (setuptools 81 and later): `robustbench.loaders` gets the one
  function that it calls, for as long as that module's import lasts.
* torchvision's compiled operators do not load beside a CPU build of torch: the schemas of
  the two operators that its import refers to are defined. The operators stay unusable.

What cannot be mended in memory is found here and said by `flatguard doctor`: torchattacks'
wheel carries a top-level `robustbench` of 2022 that may have overwritten the real one.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

REPAIR_ROBUSTBENCH = "pip install --force-reinstall --no-deps robustbench"
_kept_alive: list[Any] = []
_mended: dict[str, str] = {}


def install_hook() -> None:
    """Put the import hook in place; calling it again changes nothing."""
    if not any(isinstance(finder, _MendingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MendingFinder())
        sys.meta_path.append(_AutoAttackFinder())


def mended() -> dict[str, str]:
    """What has been mended in this process so far: package -> what was done."""
    return dict(_mended)


class _MendedLoader(importlib.abc.Loader):
    """Runs `before` ahead of a module's own loader, and `after` behind it."""

    def __init__(self, inner: importlib.abc.Loader, around: Callable[[], Callable[[], None]]):
        self._inner, self._around = inner, around

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        undo = self._around()
        try:
            self._inner.exec_module(module)
        finally:
            undo()

    def __getattr__(self, name: str) -> Any:  # get_data, get_source, is_package, ...
        return getattr(self._inner, name)


class _MendingFinder(importlib.abc.MetaPathFinder):
    """First on the path: wraps the loaders of the packages that break during their import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        around = _AROUND.get(fullname)
        if around is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _MendedLoader(spec.loader, around)
        return spec


class _AutoAttackFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last on the path: answers for `autoattack` only if nobody else did."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top != "autoattack" or importlib.util.find_spec("pyautoattack") is None:
            return None
        if rest and importlib.util.find_spec(f"pyautoattack.{rest}") is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=not rest)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        _, _, rest = spec.name.partition(".")
        # A submodule is the fork's own module under a second name: its classes are the same.
        return importlib.import_module(f"pyautoattack.{rest}") if rest else None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ != "autoattack":
            return
        fork = importlib.import_module("pyautoattack")
        module.__dict__.update(
            AutoAttack=_with_original_signature(fork.AutoAttack),
            __version__=fork.__version__,
            __path__=[],
        )
        _mended["autoattack"] = f"answered by pyautoattack {fork.__version__}"


def _with_original_signature(fork_class: Any) -> Any:
    """The fork's AutoAttack behind the signature that the original and its callers use."""

    class AutoAttack(fork_class):  # type: ignore[misc]
        __doc__ = fork_class.__doc__

        def __init__(
            self, model: Any, norm: str = "Linf", eps: float = 0.3, seed: int | None = None,
            verbose: bool = True, attacks_to_run: Sequence[str] = (), version: str = "standard",
            is_tf_model: bool = False, device: Any = "cuda", log_path: Any = None,
        ) -> None:  # fmt: skip
            if is_tf_model:
                raise ValueError("TensorFlow models need the original autoattack package")
            attacks = list(attacks_to_run) if version == "custom" else None
            super().__init__(
                model, attacks=attacks, device=device, eps=eps, norm=norm, seed=seed,
                version=version,
            )  # fmt: skip
            self.verbose = verbose

        def run_standard_evaluation(
            self, x_orig: Any, y_orig: Any, bs: int = 250, return_labels: bool = False,
            state_path: Any = None,
        ) -> Any:  # fmt: skip
            x_adv, y_adv = super().run_standard_evaluation(
                x_orig, y_orig, batch_size=bs, state_path=state_path
            )
            return (x_adv, y_adv) if return_labels else x_adv

    return AutoAttack


def _nothing_to_undo() -> None:
    """What a mend leaves to do after the import, where that is nothing."""


def _around_torchvision() -> Callable[[], None]:
    reason = torchvision_operators_missing()
    if reason is not None:
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)  # the schemas vanish with the Library object
        _mended["torchvision"] = "schemas of nms and qnms defined; the operators stay unusable"
    return _nothing_to_undo


def torchvision_operators_missing() -> str | None:
    """Why torchvision's compiled operators do not load, or None if they do."""
    import torch

    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    library = importlib.machinery.PathFinder.find_spec(
        "_C", list(spec.submodule_search_locations or ()) if spec else []
    )
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    if library is None or library.origin is None:
        return "torchvision has no compiled operators"
    try:
        torch.ops.load_library(library.origin)
    except OSError as error:
        return str(error).splitlines()[0]
    return None


def _around_robustbench_loaders() -> Callable[[], None]:
    if "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources") is not None:
        return _nothing_to_undo
    stand_in = ModuleType("pkg_resources")

    def resource_filename(package: str, resource: str) -> str:
        origin = sys.modules[package].__file__ or ""
        return str(Path(origin).parent / resource)

    stand_in.__dict__["resource_filename"] = resource_filename
    sys.modules["pkg_resources"] = stand_in
    _mended["pkg_resources"] = "robustbench.loaders got resource_filename; nobody else sees it"

    def undo() -> None:
        if sys.modules.get("pkg_resources") is stand_in:
            del sys.modules["pkg_resources"]

    return undo


def robustbench_overwritten() -> list[str]:
    """The files of the installed robustbench that now belong to torchattacks' wheel.

    Decided by the hashes in the two wheels' RECORD files; costs about 10 ms.
    """
    import base64
    import hashlib
    from importlib import metadata

    try:
        ours = metadata.files("robustbench") or []
        theirs = metadata.files("torchattacks") or []
    except metadata.PackageNotFoundError:
        return []
    own_hash = {str(file): file.hash.value for file in ours if file.hash}
    overwritten = []
    for file in theirs:
        name = str(file)
        if name not in own_hash or not name.startswith("robustbench/") or not file.hash:
            continue
        if file.hash.value == own_hash[name] or not Path(file.locate()).is_file():
            continue
        digest = hashlib.sha256(file.read_binary()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value:
            overwritten.append(name)
    return overwritten


_AROUND: dict[str, Callable[[], Callable[[], None]]] = {
    "torchvision": _around_torchvision,
    "robustbench.loaders": _around_robustbench_loaders,
}
