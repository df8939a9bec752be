"""Foolbox's attacks on PyTorch models, by their names in `foolbox.attacks`."""

from __future__ import annotations

import inspect
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.attacks.attack import (
    Attack,
    AttackInfo,
    check_args,
    parameters_of,
    without_gradients,
)
from flatguard.attacks.monitor import Monitor, Order, Segment, watch
from flatguard.environment.requirements import needed
from flatguard.geometry.budget import Budget, Norm

_PREFIX = "foolbox:"
_ORDER: dict[Norm, float] = {"Linf": math.inf, "L2": 2.0, "L1": 1.0, "L0": 0.0}
_HIDDEN = {"distance", "constraint", "args", "kwargs"}
_RESTARTS = inspect.Parameter("restarts", inspect.Parameter.KEYWORD_ONLY, default=1)
"""An additional argument for attacks with a random start; it becomes Foolbox's `repeat`."""

_TARGETED_ONLY = frozenset({"GenAttack"})


@lru_cache
def infos() -> dict[str, AttackInfo]:
    """Every concrete attack class, under each of its names."""
    with needed("foolbox", "foolbox", "--attack foolbox:NAME"):
        import foolbox
    classes = {
        name: cls
        for name, cls in vars(foolbox.attacks).items()
        if inspect.isclass(cls)
        and issubclass(cls, foolbox.attacks.Attack)
        and not inspect.isabstract(cls)
    }
    return {_PREFIX + name: _info(name, cls) for name, cls in sorted(classes.items())}


def _info(name: str, cls: Any) -> AttackInfo:
    from foolbox.attacks.base import FixedEpsilonAttack

    norms, parameters = _norms(cls), parameters_of(cls, _HIDDEN)
    if "random_start" in parameters and issubclass(cls, FixedEpsilonAttack):
        parameters["restarts"] = _RESTARTS
    return AttackInfo(
        _PREFIX + name,
        "foolbox",
        norms,
        parameters,
        minimum_norm=norms != ("none",) and not issubclass(cls, FixedEpsilonAttack),
        order=Order(keeps=True),  # Foolbox's attacks work on the whole batch until they return
    )


def _norms(cls: Any) -> tuple[Norm, ...]:
    from foolbox.attacks import HopSkipJumpAttack
    from foolbox.attacks.base import FixedEpsilonAttack, FlexibleDistanceMinimizationAttack

    if issubclass(cls, FlexibleDistanceMinimizationAttack):
        return ("Linf", "L2", "L1", "L0")
    if issubclass(cls, HopSkipJumpAttack):
        return ("L2", "Linf")  # it minimises its `constraint`; its `distance` is neither
    distance = getattr(cls, "distance", None)
    if isinstance(distance, property) and issubclass(cls, FixedEpsilonAttack):
        distance = cls().distance
    by_order: dict[float, Norm] = {order: norm for norm, order in _ORDER.items()}
    return (by_order[distance.p],) if distance is not None else ("none",)


def build(name: str, budget: Budget, num_classes: int, args: dict[str, Any]) -> Attack:
    """One attack with the library's defaults but for `args`."""
    info = infos()[name]
    return _FoolboxAttack(info, budget, num_classes, check_args(info, args))


class _FoolboxAttack(Attack):
    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, seed: int, monitor: Monitor
    ) -> Tensor:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        attack = self._make()
        name, restarts = type(attack).__name__, int(self.args.get("restarts", 1))

        def describe(calls: int) -> Segment:
            return Segment(name, calls if restarts > 1 else None, eps=self.budget.eps)

        watch(monitor, attack, "run", describe)
        if restarts != 1:
            attack = attack.repeat(restarts)
        if isinstance(attack, foolbox.attacks.DatasetAttack):
            attack.feed(wrapped, images)
        criterion = foolbox.criteria.Misclassification(labels)
        if self.info.name.removeprefix(_PREFIX) in _TARGETED_ONLY:
            targets = _runner_up(model, images, labels)
            criterion = foolbox.criteria.TargetedMisclassification(targets)
        if self.budget.norm == "none":
            result: Tensor = attack(wrapped, images, criterion)[0]
            return result
        # Foolbox cannot clip to an L0 ball, so the nearest example is checked afterwards.
        epsilon = None if self.budget.norm == "L0" else self.budget.eps
        raw, clipped, _ = attack(
            wrapped, images, criterion, epsilons=epsilon, **self._call_args(wrapped, images, labels)
        )
        # A fixed-radius attack may leave its ball before Foolbox clips it. The result of a
        # minimum-norm attack counts unclipped, if it lies inside the ball.
        chosen: Tensor = raw if self.info.minimum_norm else clipped
        return chosen

    def _call_args(self, wrapped: Any, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Required call arguments: for the refinement attack, an example from blended noise."""
        import foolbox

        if not self.info.name.endswith(":BinarizationRefinementAttack"):
            return {}
        start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50)
        return {"starting_points": start.run(wrapped, images, labels)}

    def _hint(self, error: Exception, rows: int) -> str:
        """The causes that Foolbox's attacks have of their own."""
        other = without_gradients(self.budget.norm)
        if "threshold does not match" in str(error):
            return (
                "; it refines examples for models that turn each pixel black or white at "
                f"--attack-arg threshold=..., and this model does not; use {other}"
            )
        has_no_start = "init_attack failed" in str(error) or (
            isinstance(error, AssertionError) and "BrendelBethge" in self.info.name
        )
        if has_no_start:
            return (
                "; it starts from noise that the model takes for another class, and found none "
                f"for some of the images; use {other}"
            )
        return super()._hint(error, rows)

    def _make(self) -> Any:
        import foolbox
        from foolbox.distances import LpDistance

        cls = getattr(foolbox.attacks, self.info.name.removeprefix(_PREFIX))
        accepted = inspect.signature(cls).parameters
        args = {name: value for name, value in self.args.items() if name != "restarts"}
        flexible = isinstance(getattr(cls, "distance", None), property) and self.info.minimum_norm
        if "constraint" in accepted:
            args["constraint"] = self.budget.norm.lower()
        if "distance" in accepted and flexible:
            args["distance"] = LpDistance(_ORDER[self.budget.norm])
        attack = cls(**args)
        if "distance" not in accepted and flexible:
            attack._distance = LpDistance(_ORDER[self.budget.norm])  # Pointwise
        return attack

    def effective_args(self) -> dict[str, Any]:
        defaults = {
            name: parameter.default
            for name, parameter in self.info.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        return defaults | self.args


def _runner_up(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The most likely wrong class of each image: the target of attacks that need one."""
    with torch.no_grad():
        logits = model(images)
    targets: Tensor = logits.scatter(1, labels[:, None], -math.inf).argmax(dim=1)
    return targets
