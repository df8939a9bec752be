"""AutoAttack's component attacks and its versions, from the package `pyautoattack`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.attacks.attack import Attack, AttackInfo, check_args, parameters_of
from flatguard.attacks.class_limits import check_dlr
from flatguard.attacks.monitor import Monitor, Segment, watch
from flatguard.environment.requirements import needed
from flatguard.geometry.budget import Budget, Norm

_VERSIONS = ("standard", "plus", "rand")
_COMPONENT = {
    "apgd-ce": "apgd",
    "apgd-t": "apgd_targeted",
    "apgd-dlr": "apgd",
    "fab": "fab",
    "fab-t": "fab",
    "square": "square",
}
"""The attribute of an AutoAttack object that holds the settings of a component attack."""

_HIDDEN = {
    "predict", "norm", "eps", "seed", "device", "verbose", "logger", "is_tf_model", "loss",
    "targeted", "loss_fn",
}  # fmt: skip
_ATTRIBUTE = {"rho": "thr_decr", "resc_schedule": "rescale_schedule"}
"""Arguments that are stored under another attribute name."""

_EPS_STAGES = (3.0, 2.0, 1.0)
"""The multiples of the radius that APGD uses in turn for L1."""

_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")


@lru_cache
def infos() -> dict[str, AttackInfo]:
    """The six component attacks and the three versions."""
    aa = _autoattack(nn.Identity(), Budget("Linf", 1.0), "standard", 0, torch.device("cpu"))
    parts = {
        name: AttackInfo(
            name, "autoattack", _NORMS, parameters_of(type(getattr(aa, component)), _HIDDEN)
        )
        for name, component in _COMPONENT.items()
    }
    return parts | {name: AttackInfo(name, "autoattack", _NORMS, {}) for name in _VERSIONS}


def build(name: str, budget: Budget, num_classes: int, args: dict[str, Any]) -> Attack:
    """One component attack or version; `args` override AutoAttack's own settings."""
    info = infos()[name]
    uses_dlr = name in ("apgd-dlr", "apgd-t", *_VERSIONS)
    is_targeted = name in ("apgd-t", "standard", "plus")
    if uses_dlr:
        check_dlr(name, num_classes, targeted=is_targeted)
    return _AutoAttackPart(info, budget, num_classes, check_args(info, args))


class _AutoAttackPart(Attack):
    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, seed: int, monitor: Monitor
    ) -> Tensor:
        attack = _autoattack(model, self.budget, self.info.name, seed, images.device)
        self._configure(attack)
        self._let_watch(attack, monitor)
        adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        result: Tensor = adversarial
        return result

    def _let_watch(self, attack: Any, monitor: Monitor) -> None:
        """Report each `attack_single_run`; all other model calls are AutoAttack's own checks."""
        apgd, targeted, fab, square = (
            attack.apgd, attack.apgd_targeted, attack.fab, attack.square,
        )  # fmt: skip

        def of_apgd(calls: int) -> Segment:
            # L1 attacks shrink their radius in three stages; each stage is a separate run.
            stages = len(_EPS_STAGES) if apgd.use_largereps else 1
            restart = calls // stages % apgd.n_restarts
            return Segment(f"apgd-{apgd.loss}", restart, None, float(apgd.eps))

        def of_targeted(calls: int) -> Segment:
            stages = len(_EPS_STAGES) if targeted.use_largereps else 1
            run = calls // stages
            target = run // targeted.n_restarts + 1
            return Segment("apgd-t", run % targeted.n_restarts, target, float(targeted.eps))

        def of_fab(calls: int) -> Segment:
            if not fab.targeted:
                return Segment("fab", calls % fab.n_restarts, None, float(fab.eps))
            target = fab.target_class - 1
            return Segment("fab-t", calls % fab.n_restarts, target, float(fab.eps))

        def of_square(calls: int) -> Segment:
            return Segment("square", calls % square.n_restarts, None, float(square.eps))

        for part, describe in (
            (apgd, of_apgd), (targeted, of_targeted), (fab, of_fab), (square, of_square),
        ):  # fmt: skip
            watch(monitor, part, "attack_single_run", describe)

    def _configure(self, attack: Any) -> None:
        if self.info.name in _COMPONENT:
            component = getattr(attack, _COMPONENT[self.info.name])
            for name, value in self.args.items():
                setattr(component, _ATTRIBUTE.get(name, name), value)
        # The library raises IndexError for more target classes than there are wrong classes.
        most = self.num_classes - 1
        for component in (attack.apgd_targeted, attack.fab):
            component.n_target_classes = min(component.n_target_classes, most)

    def effective_args(self) -> dict[str, Any]:
        attack = _autoattack(nn.Identity(), self.budget, self.info.name, 0, torch.device("cpu"))
        self._configure(attack)
        if self.info.name in _COMPONENT:
            return self._settings(getattr(attack, _COMPONENT[self.info.name]))
        return {
            f"{part}.{name}": value
            for part in attack.attacks_to_run
            for name, value in self._settings(getattr(attack, _COMPONENT[part])).items()
        }

    @staticmethod
    def _settings(component: Any) -> dict[str, Any]:
        names = parameters_of(type(component), _HIDDEN)
        return {name: getattr(component, _ATTRIBUTE.get(name, name)) for name in names}

    def expected_calls(self) -> int | None:
        args = self.effective_args()
        if self.info.name == "square":
            return int(args["n_queries"]) * int(args["n_restarts"])
        if self.info.name in ("apgd-ce", "apgd-dlr", "apgd-t"):
            targets = args.get("n_target_classes", 1)
            return int(args["n_iter"]) * int(args["n_restarts"]) * int(targets)
        return None


def _autoattack(
    model: nn.Module, budget: Budget, name: str, seed: int, device: torch.device
) -> Any:
    with needed("pyautoattack", "all", "AutoAttack"):
        from pyautoattack import AutoAttack

    part = name in _COMPONENT
    return AutoAttack(
        model,
        norm=budget.norm,
        eps=budget.eps,
        seed=seed,
        device=device,
        version="custom" if part else name,
        attacks=[name] if part else None,
    )
