"""Makes torchattacks, autoattack, robustbench, torchvision and foolbox importable together.

Each workaround handles one known failure: a module is imported as usual, and only if its import
fails because a certain capability is missing, the workaround supplies it. It registers no operator
and reads no file name or version. The order of imports does not matter. Nothing else in flatguard
changes other packages.

This module imports no torch: `import flatguard` is part of every pytest run on a machine that has
the plugin.

One fault cannot be worked around in memory: torchattacks' wheel carries a top-level `robustbench`
of 2022 that may have overwritten the real one. `robustbench_overwritten` finds it, and
`flatguard doctor --fix` repairs it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_Retry = Callable[[], None]
"""Runs the module's own code again."""

_Handler = Callable[[ModuleType, "Exception | None", _Retry], bool]
"""Receives a module after its import, and the error if it failed; returns whether it handled the
error."""


@dataclass(frozen=True)
class Workaround:
    """A workaround for one fault of another package.

    Attributes:
        package: the distribution with the fault.
        module: the module whose import fails.
        fault: what is missing.
        effect: what flatguard does if it is missing.
        report: the upstream report.
    """

    package: str
    module: str
    fault: str
    effect: str
    report: str


AUTOATTACK = Workaround(
    "autoattack",
    "autoattack",
    "the original autoattack is not on the package registry; its fork pyautoattack is",
    "`import autoattack` gives pyautoattack behind the original's signature",
    "https://github.com/fra31/auto-attack/issues/6",
)
PKG_RESOURCES = Workaround(
    "robustbench",
    "robustbench.loaders",
    "it imports pkg_resources, which setuptools no longer has",
    "it gets resource_filename, the one function that it calls; no other module sees it",
    "https://github.com/RobustBench/robustbench/pull/214",
)
OPERATORS = Workaround(
    "torchvision",
    "torchvision._meta_registrations",
    "its compiled operators do not load beside this torch, and its import stops there",
    "its import goes on without them; the operators themselves stay unusable",
    "https://github.com/pytorch/pytorch/issues/157648",
)
HUB = Workaround(
    "timm",
    "timm.models._hub",
    "it disables Hugging Face's hub, because huggingface_hub no longer has a function that "
    "timm needs for uploads",
    "it can load models from the hub and its cache; uploads stay impossible",
    "https://github.com/huggingface/pytorch-image-models/pull/2592",
)
WORKAROUNDS = (AUTOATTACK, PKG_RESOURCES, OPERATORS, HUB)

_applied: set[Workaround] = set()


def install_hook() -> None:
    """Put the import hook in place; calling it again changes nothing."""
    if not any(isinstance(finder, _WorkaroundFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WorkaroundFinder())
        sys.meta_path.append(_AutoAttackFinder())


def was_needed(workaround: Workaround) -> bool:
    """Whether a workaround has acted in this process so far."""
    return workaround in _applied


class _WorkaroundLoader(importlib.abc.Loader):
    """A module's own loader, with a handler for the known failure."""

    def __init__(self, inner: importlib.abc.Loader, handler: _Handler):
        self._inner, self._handler = inner, handler

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def retry() -> None:
            self._inner.exec_module(module)

        try:
            self._inner.exec_module(module)
        except Exception as error:
            if not self._handler(module, error, retry):
                raise
        else:
            self._handler(module, None, retry)

    def __getattr__(self, name: str) -> Any:  # get_data, get_source, is_package, ...
        return getattr(self._inner, name)


class _WorkaroundFinder(importlib.abc.MetaPathFinder):
    """The first finder: wraps the loaders of the modules whose import is known to fail."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        handler = _HANDLERS.get(fullname)
        if handler is None:
            return None
        spec = _found_by_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WorkaroundLoader(spec.loader, handler)
        return spec


def _found_by_others(
    this: importlib.abc.MetaPathFinder,
    fullname: str,
    path: Sequence[str] | None,
    target: ModuleType | None,
) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if finder is this or find is None:
            continue
        spec: importlib.machinery.ModuleSpec | None = find(fullname, path, target)
        if spec is not None:
            return spec
    return None


class _AutoAttackFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder: supplies `autoattack` only if no other finder did."""

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
        # A submodule is the fork's own module under a second name, with the same classes.
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
        _applied.add(AUTOATTACK)


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


def torchvision_has_operators() -> bool:
    """Whether torchvision's compiled operators are loaded; call it after importing torchvision."""
    import torch

    return hasattr(torch.ops.torchvision, "nms")


def _without_operators(module: ModuleType, error: Exception | None, retry: _Retry) -> bool:
    # The module only registers metadata of operators, and without operators there is none.
    if not isinstance(error, RuntimeError | AttributeError) or torchvision_has_operators():
        return False
    _applied.add(OPERATORS)
    return True


def _with_resource_filename(module: ModuleType, error: Exception | None, retry: _Retry) -> bool:
    if not isinstance(error, ModuleNotFoundError) or error.name != "pkg_resources":
        return False
    stand_in = ModuleType("pkg_resources")

    def resource_filename(package: str, resource: str) -> str:
        origin = sys.modules[package].__file__ or ""
        return str(Path(origin).parent / resource)

    stand_in.__dict__["resource_filename"] = resource_filename
    sys.modules["pkg_resources"] = stand_in
    try:
        retry()
    finally:
        if sys.modules.get("pkg_resources") is stand_in:
            del sys.modules["pkg_resources"]
    _applied.add(PKG_RESOURCES)
    return True


def _with_the_hub(module: ModuleType, error: Exception | None, retry: _Retry) -> bool:
    missing = "repo_type_and_id_from_hf_id"
    if error is not None or getattr(module, "_has_hf_hub", True):
        return False
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        return False
    if hasattr(hub, missing):
        return False  # timm lacks something else

    def refuse(hf_id: str) -> None:
        raise RuntimeError(
            "this timm cannot upload with this huggingface_hub; install a newer timm"
        )

    setattr(hub, missing, refuse)
    try:
        retry()
    finally:
        delattr(hub, missing)
    if getattr(module, "_has_hf_hub", False):
        _applied.add(HUB)
    return True


_HANDLERS: dict[str, _Handler] = {
    HUB.module: _with_the_hub,
    OPERATORS.module: _without_operators,
    PKG_RESOURCES.module: _with_resource_filename,
}


def robustbench_overwritten() -> list[str]:
    """The files of the installed robustbench that torchattacks' wheel overwrote or removed.

    Compares hashes with the two wheels' RECORD files. Uninstalling torchattacks removes the files
    that both wheels contain, so missing files count, too. Costs about 10 ms.
    """
    import base64
    import hashlib

    own, theirs = _recorded("robustbench"), _recorded("torchattacks")
    overwritten = []
    for name, (path, sha256) in own.items():
        if not path.is_file():
            overwritten.append(name)
        elif name in theirs and theirs[name][1] != sha256:
            digest = hashlib.sha256(path.read_bytes()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == theirs[name][1]:
                overwritten.append(name)
    return overwritten


def _recorded(package: str) -> dict[str, tuple[Path, str]]:
    """The files in `robustbench/` that a wheel installed, and their hashes.

    `importlib.metadata.files` omits missing files from Python 3.12 on.
    """
    import csv
    from importlib import metadata

    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return {}
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return {
        row[0]: (Path(str(distribution.locate_file(row[0]))), row[1].removeprefix("sha256="))
        for row in rows
        if len(row) > 1 and row[0].startswith("robustbench/") and row[1].startswith("sha256=")
    }
