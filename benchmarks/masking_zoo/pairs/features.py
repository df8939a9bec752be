"""Defences between the layers: winners, sparsity, quantised and detached features, ensembles."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.attacks import StandIn
from benchmarks.masking_zoo.defences.features import (
    MeanOf,
    PartlyDetached,
    QuantisedFeatures,
    mean_sparse,
    with_soft_bands,
    with_straight_stages,
)
from benchmarks.masking_zoo.digits_networks import KWinnersMlp
from benchmarks.masking_zoo.pair import Defend
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    LYING,
    PGD_CNN,
    RUGGED,
    WIDE,
    defended,
    honest,
    plain,
    with_light_budgets,
)

MEANS, STEPS, CUTS, MEMBERS = (
    "mean-centred sparsity", "quantised features", "partly detached features",
    "partly detached ensemble",
)  # fmt: skip


def sparse(network: str, width: float, straight: bool = False) -> Defend:
    """Mean-centred sparsity with the means of the network's own images."""

    def defend(net: nn.Module) -> nn.Module:
        return mean_sparse(net, networks.calibration(network)[0], width, straight)

    return defend


def mean_of(*names: str, detached: int = 0) -> Defend:
    """The mean of other networks and this one; the first ones without gradient."""

    def defend(net: nn.Module) -> nn.Module:
        return MeanOf([*(networks.load(name).module for name in names), net], detached)

    return defend


def let_through(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The same values with every gradient let through, then the bare network, then averages."""
    return [
        StandIn(with_straight_stages(model)), StandIn(net), StandIn(model, draws=4, smoothing=0.25),
    ]  # fmt: skip


def softened(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Bands with smooth edges, steeper and steeper, then every gradient let through."""
    soft = [StandIn(with_soft_bands(model, steepness)) for steepness in (5.0, 10.0, 25.0)]
    return [*soft, StandIn(with_straight_stages(model))]


def all_members(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """The mean of all members with all gradients."""
    assert isinstance(model, MeanOf)
    return [StandIn(MeanOf(list(model.nets)))]


def mlp_winners(model: nn.Module, net: nn.Module) -> list[StandIn]:
    """Smooth cuts, gradients for losers too, and averages over noise."""
    assert isinstance(net, KWinnersMlp)
    ways = [{"steepness": 4.0}, {"steepness": 10.0}, {"straight": True}]
    opened = [KWinnersMlp(net.kept, **way) for way in ways]  # type: ignore[arg-type]
    for other in opened:
        other.load_state_dict(net.state_dict())
    return [
        *(StandIn(other.eval()) for other in opened), StandIn(opened[0], draws=4, smoothing=0.25),
        StandIn(model, draws=8, smoothing=0.25), StandIn(model, draws=8, smoothing=0.6),
    ]  # fmt: skip


def of_features(kind: type[nn.Module], **settings: float | bool) -> Defend:
    """A defence of the last features."""
    return partial(kind, **settings)


LAYERS = (
    defended("digits-kwta-mlp", "digits_kwta_mlp", 150, plain, "k-winners-take-all", RUGGED,
             mlp_winners),
    honest("digits-kwta-half", "k-winners-take-all", "digits_kwta_half", 200, plain, pair.kwta),
    defended("digits-robust-mean-sparse", "digits_robust", 150, sparse("digits_robust", 0.6), MEANS,
             LYING, softened),
    defended("cnn-pgd-mean-sparse", PGD_CNN, 100, sparse(PGD_CNN, 0.5), MEANS, LYING, softened),
    defended("resnet20-mean-sparse", "resnet20", 60, sparse("resnet20", 0.3), MEANS, LYING,
             softened),
    honest("digits-robust-slightly-sparse", MEANS, "digits_robust", 150,
           sparse("digits_robust", 0.02), softened),
    honest("cnn-wide-sparse-straight", MEANS, WIDE, 150, sparse(WIDE, 0.2, True), softened),
    defended("digits-robust-quantised-features", "digits_robust", 150,
             of_features(QuantisedFeatures, step=2.0), STEPS, ("unavailable-gradient",),
             let_through),
    defended("cnn-pgd-quantised-features", PGD_CNN, 100,
             of_features(QuantisedFeatures, step=0.5), STEPS, ("unavailable-gradient",),
             let_through),
    defended("cnn-wide-mostly-quantised-features", WIDE, 100,
             of_features(QuantisedFeatures, step=0.25, share=0.8), STEPS, LYING, let_through),
    honest("digits-robust-quantised-straight", STEPS, "digits_robust", 150,
           of_features(QuantisedFeatures, step=0.5, straight=True), let_through),
    honest("cnn-base-quantised-straight", STEPS, BASE, 150,
           of_features(QuantisedFeatures, step=0.05, straight=True), let_through),
    defended("digits-robust-partly-detached", "digits_robust", 150,
             of_features(PartlyDetached, share=0.8), CUTS, LYING, let_through),
    defended("cnn-pgd-partly-detached", PGD_CNN, 100, of_features(PartlyDetached, share=0.8), CUTS,
             LYING, let_through),
    honest("digits-robust-nothing-detached", CUTS, "digits_robust", 150,
           of_features(PartlyDetached, share=0.0), let_through),
    defended("digits-detached-ensemble", "digits_robust", 100, mean_of("digits_2", detached=1),
             MEMBERS, LYING, all_members),
    defended("cnn-detached-ensemble", BASE, 100, mean_of(PGD_CNN, WIDE, detached=2), MEMBERS, LYING,
             all_members),
    honest("digits-robust-ensemble", MEMBERS, "digits_smooth_robust", 150,
           mean_of("digits_robust"), all_members),
    honest("cnn-ensemble", MEMBERS, WIDE, 150, mean_of(BASE), all_members),
)  # fmt: skip

FEATURES = with_light_budgets(LAYERS)
