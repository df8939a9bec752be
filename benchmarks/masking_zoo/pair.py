"""A network behind a defence, and what the reference may know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from torch import Tensor, nn

from benchmarks.masking_zoo import networks
from benchmarks.masking_zoo import stand_ins as st
from benchmarks.masking_zoo.attacks import Budget, StandIn, Survivors
from benchmarks.masking_zoo.defences import outputs
from benchmarks.masking_zoo.digits import TEMPERATURE

Defend = Callable[[nn.Module], nn.Module]
Plan = Callable[[nn.Module, nn.Module], list[StandIn]]
"""From the defended model and the bare network to what is attacked in its place."""

SATURATION = "saturation"
UNAVAILABLE = "unavailable-gradient"
SHATTERED = "shattered-gradient"
STOCHASTIC = "stochastic"
RUGGED = "rugged-loss"


@dataclass(frozen=True)
class Pair:
    """A network behind a defence.

    Attributes:
        name: in tables and on the command line.
        network: of `networks.NAMES`.
        defend: puts the defence around the network.
        family: what kind of defence it is.
        mechanism: what explains it if it turns out masked; more than one word where the words
            overlap. It scores "right mechanism" and decides no label.
        plan: what the reference attacks.
        n: samples.
        random: whether it draws anew at every call.
        budget: of the reference.
        radius: as a fraction of the network's own.
        survivors: how examples are shown to the model; a model with a memory needs another way.
        kind: of defence, as the literature names it; what is held out together.
    """

    name: str
    network: str
    defend: Defend
    family: str
    mechanism: tuple[str, ...]
    plan: Plan
    n: int = 100
    random: bool = False
    budget: Budget = field(default_factory=Budget)
    radius: Fraction = Fraction(1)
    kind: str = ""
    survivors: type[Survivors] = Survivors

    @property
    def eps(self) -> float:
        """The audited radius in ℓ∞."""
        return networks.load(self.network).eps * float(self.radius)

    def build(self) -> nn.Module:
        """The defended model, in eval mode."""
        return self.defend(networks.load(self.network).module).eval()

    def data(self) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        network = networks.load(self.network)
        return network.images[: self.n], network.labels[: self.n]

    def stand_ins(self, model: nn.Module) -> list[StandIn]:
        """What the reference attacks in place of this model."""
        return self.plan(model, networks.load(self.network).module)

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        return networks.missing(self.network)


def itself(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Honest gradients: the model as it is."""
    return [StandIn(model)]


def bare(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The network without its defence."""
    return [StandIn(net)]


def straight(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The front's values with the identity's gradient, then the network without it."""
    return [StandIn(st.StraightThrough(model)), StandIn(net)]


def averaged(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """EOT over 16 draws, then the network without its noise."""
    return [StandIn(model, draws=16), StandIn(net)]


def smoothed(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The network without its front, then gradients averaged over noise within the budget."""
    return [StandIn(net), StandIn(model, draws=8, smoothing=0.5)]


def kwta(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Gradients for losers too, smooth winners, and averages over noise."""
    return [
        StandIn(st.open_winners(net)),
        StandIn(st.half_open_winners(net)),
        StandIn(model, draws=8, smoothing=0.25),
    ]


def collapsed(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Many starts on the model itself, and averages over noise."""
    return [StandIn(model), StandIn(model, draws=8, smoothing=0.25)]


def soft_code(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """A thermometer of sigmoids."""
    return [StandIn(st.soft_thermometer(net)), StandIn(st.soft_thermometer(net), 8, 0.3)]


def cooler(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """A distilled network at the temperature of its training."""
    return [StandIn(outputs.Temperature(net, TEMPERATURE))]


def members(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The mean logits of all that have a voice."""
    assert isinstance(model.nets, nn.ModuleList)
    return [StandIn(st.LogitAverage(list(model.nets)))]
