"""The attacks of torchattacks, by their exported names."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from flatguard.attacks.attack import Attack, AttackInfo, check_args, parameters_of
from flatguard.attacks.class_limits import check_count, check_dlr
from flatguard.attacks.monitor import SINGLE_RUNS, Monitor, Order, Segment, watch, watch_individual
from flatguard.environment.requirements import needed
from flatguard.geometry.budget import Budget, Norm

_PREFIX = "torchattacks:"
_RADII = ("eps", "max_epsilon")
_HIDDEN = {"model", "norm", "n_classes", *_RADII}
_NEEDS = {
    "MultiAttack": "attack objects; build it in Python and run it under flatguard.Recorder",
    "LGV": "training data; build it in Python and run it under flatguard.Recorder",
}
_KEEPS_ORDER = frozenset({
    "VANILA", "GN", "FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD",
    "DIFGSM", "TIFGSM", "Jitter", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM", "PIFGSM",
    "PIFGSMPP", "CW", "PGDL2", "EADL1", "EADEN",
})  # fmt: skip
"""Attacks that call the model on the whole batch, in its order, at every step."""


_CONSECUTIVE_COPIES = frozenset({"PGDRS", "PGDRSL2"})
"""Attacks that call the model on several noisy copies of each image in a row."""

_TARGETS_OF_JSMA = 10
"""JSMA aims at the class after the right one, of ten."""

_SEQUENTIAL = frozenset({"SparseFool", "JSMA", "OnePixel", "Pixle"})
"""Attacks that process one image after the other."""


@lru_cache
def infos() -> dict[str, AttackInfo]:
    """Every class in torchattacks' `__all__`."""
    library = _torchattacks()
    return {_PREFIX + name: _info(name, getattr(library, name)) for name in library.__all__}


def _torchattacks() -> ModuleType:
    with needed("torchattacks", "torchattacks", "--attack torchattacks:NAME"):
        import torchattacks
    module: ModuleType = torchattacks
    return module


def _info(name: str, cls: Any) -> AttackInfo:
    signature = inspect.signature(cls).parameters
    norms = _norms(cls)
    return AttackInfo(
        _PREFIX + name,
        "torchattacks",
        norms,
        parameters_of(cls, _HIDDEN),
        minimum_norm=norms != ("none",) and not any(radius in signature for radius in _RADII),
        order=Order(
            keeps=name in _KEEPS_ORDER,
            copies="consecutive" if name in _CONSECUTIVE_COPIES else "none",
            sequential=name in _SEQUENTIAL,
        ),
        needs=_NEEDS.get(name),
    )


def _norms(cls: Any) -> tuple[Norm, ...]:
    """The norms in the docstring of the class; torchattacks states them nowhere else."""
    if cls.__name__ == "FAB":
        return ("Linf", "L2")  # L1 is stated, too, but it raises: `res` is never set
    found = re.search(r"Distance Measure\s*:\s*(.+)", cls.__doc__ or "")
    norms: tuple[Norm, ...] = ("Linf", "L2", "L1", "L0")
    stated = tuple(norm for norm in norms if found and norm in found.group(1))
    return stated or ("none",)


def build(name: str, budget: Budget, num_classes: int, args: dict[str, Any]) -> Attack:
    """One attack; the budget, the classes and `args` override the library's defaults."""
    info = infos()[name]
    args = check_args(info, args)
    _check_classes(name, num_classes, args)
    return _TorchAttack(info, budget, num_classes, args)


def _check_classes(name: str, num_classes: int, args: dict[str, Any]) -> None:
    """Refuse too few classes before the attack; torchattacks raises IndexError in its midst."""
    attack = name.removeprefix(_PREFIX)
    is_standard = attack == "AutoAttack" and args.get("version", "standard") != "rand"
    if attack in ("APGDT", "AutoAttack") or args.get("loss") == "dlr":
        check_dlr(name, num_classes, targeted=attack == "APGDT" or is_standard)
    if attack == "JSMA":
        check_count(name, num_classes, _TARGETS_OF_JSMA)


def _let_watch(attack: Any, monitor: Monitor) -> None:
    """Report each `attack_single_run` of every part, or `forward` if it has no such method."""
    parts = [attack, *attack._attacks.values()]
    wrappers = {id(part) for part in parts if part._attacks}
    for part in {id(part): part for part in parts}.values():
        name, eps = type(part).__name__, getattr(part, "eps", None)
        if name == "DeepFool":
            watch_individual(monitor, part, "_forward_indiv", Segment(name))
            continue
        methods = [method for method in SINGLE_RUNS if hasattr(part, method)]
        has_restarts = bool(methods) and hasattr(part, "n_restarts")
        if not methods and id(part) not in wrappers:
            methods = ["forward"]

        def describe(
            calls: int, part: Any = part, name: str = name, eps: Any = eps,
            has_restarts: bool = has_restarts,
        ) -> Segment:  # fmt: skip
            restarts = getattr(part, "n_restarts", 1)
            targeted = hasattr(part, "target_class") and part.target_class is not None
            target = int(part.target_class) - 1 if targeted else None
            return Segment(name, calls % restarts if has_restarts else None, target, eps)

        for method in methods:
            watch(monitor, part, method, describe)


class _TorchAttack(Attack):
    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, seed: int, monitor: Monitor
    ) -> Tensor:
        arguments = self._arguments()
        if "seed" in self.info.parameters and "seed" not in self.args:
            arguments["seed"] = seed  # AutoAttack's default there is the time of day
        attack = self._class()(model, **arguments)
        attack.set_device(images.device)
        _let_watch(attack, monitor)
        result: Tensor = attack(images, labels)
        return result

    def _class(self) -> Any:
        return getattr(_torchattacks(), self.info.name.removeprefix(_PREFIX))

    def _arguments(self) -> dict[str, Any]:
        accepted = inspect.signature(self._class()).parameters
        from_spec = {
            "eps": self.budget.eps,
            "max_epsilon": self.budget.eps,
            "norm": self.budget.norm,
            "n_classes": self.num_classes,
        }
        return {k: v for k, v in from_spec.items() if k in accepted} | self.args

    def effective_args(self) -> dict[str, Any]:
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(self._class()).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        effective = defaults | self._arguments()
        if "seed" in self.info.parameters and "seed" not in self.args:
            effective["seed"] = "derived for each block"
        return effective
