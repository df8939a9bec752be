"""The catalogue's switches, and harmless models that look like them."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import joint, networks
from benchmarks.masking_zoo.attacks import Budget
from benchmarks.masking_zoo.defences import switches
from benchmarks.masking_zoo.pair import Defend, Pair

SHATTERED = ("shattered-gradient",)
"""The gradient of the chosen branch is true and says nothing about the gate."""

SMALL, LARGE = (1, 8, 8), (3, 32, 32)
ON_DIGITS = Budget(steps=60, restarts=2, targets=2, queries=300)
ON_IMAGES = Budget(steps=50, restarts=2, targets=2, queries=200)


def _between(kind: type[nn.Module], *others: str, **options: object) -> Defend:
    """A switch between the network and others."""

    def defend(net: nn.Module) -> nn.Module:
        nets = [net, *(networks.load(name).module for name in others)]
        return kind(nets, **options)

    return defend


def _pair(name: str, network: str, n: int, defend: Defend, family: str = "switch") -> Pair:
    budget = ON_DIGITS if network in networks.DIGITS else ON_IMAGES
    mechanism = SHATTERED if family == "switch" else ()
    return Pair(
        name, network, defend, family, mechanism, joint.switched, n, budget=budget,
        kind="gates between networks",
    )  # fmt: skip


_digits = partial(_pair, network="digits_robust", n=100)

SWITCHED = (
    _digits("digits-wave", defend=_between(
        switches.Wave, "digits_collapsed", shape=SMALL, frequency=60.0, seed=1)),
    _pair("digits-wave-plain", "digits", 100, _between(
        switches.Wave, "digits_2", shape=SMALL, frequency=200.0, seed=5)),
    _digits("digits-one-by-one", defend=_between(
        switches.OneByOne, "digits_2", shape=SMALL, frequency=80.0, seed=2)),
    _digits("digits-routed", defend=_between(
        switches.Routed, "digits", "digits_2", shape=SMALL, seed=3)),
    _digits("digits-top-two", defend=_between(
        switches.TopTwo, "digits", "digits_2", "digits_collapsed", shape=SMALL, seed=4)),
    _pair("digits-second-opinion", "digits", 100, _between(
        switches.SecondOpinion, "digits_robust", threshold=0.5)),
    _pair("digits-detector", "digits", 100, _between(switches.Detector, threshold=0.3)),
    _pair("digits-more-confident", "digits", 100, _between(
        switches.MoreConfident, "digits_2")),
    _digits("digits-median", defend=_between(switches.Median, "digits", "digits_2")),
    _pair("digits-by-class", "digits", 100, _between(
        switches.ByClass, "digits_robust", "digits_2")),
    _pair("digits-agreement", "digits", 100, _between(
        switches.Agreement, "digits_2", "digits_robust")),
    _pair("cnn-wave", "cnn_wide_certified", 100, _between(
        switches.Wave, "cnn_a_pgd", shape=LARGE, frequency=3000.0, seed=6)),
    _pair("cnn-second-opinion", "cnn_a_pgd", 100, _between(
        switches.SecondOpinion, "cnn_base_certified", threshold=0.2)),
    _pair("cnn-agreement", "cnn_a_pgd", 100, _between(
        switches.Agreement, "cnn_base_certified", "cnn_wide_certified")),
    _pair("resnet20-routed", "resnet20", 40, _between(
        switches.Routed, "resnet20_rsfgsm", shape=LARGE, seed=7)),
)  # fmt: skip

_honest = partial(_pair, network="digits_robust", n=200, family="honest")

LOOK_ALIKES = (
    _honest("digits-mean", defend=_between(switches.MeanOfLogits, "digits")),
    _honest("digits-soft-routing", defend=_between(
        switches.SoftRouting, "digits", shape=SMALL, seed=8)),
    _honest("digits-max-of-heads", defend=_between(switches.MaxOfHeads)),
    _honest("digits-reporting", defend=_between(switches.Reporting)),
    _honest("digits-scaled-wave", defend=_between(
        switches.ScaledWave, shape=SMALL, frequency=60.0, seed=9)),
    _honest("digits-brighter", defend=_between(switches.BrighterRouted, shape=SMALL, seed=10)),
    _pair("cnn-mean", "cnn_base_certified", 200, _between(
        switches.MeanOfLogits, "cnn_wide_certified"), family="honest"),
    _pair("cnn-max-of-heads", "cnn_a_pgd", 200, _between(switches.MaxOfHeads), family="honest"),
    _pair("cnn-reporting", "cnn_wide_certified", 200, _between(switches.Reporting),
          family="honest"),
    _pair("rsfgsm-brighter", "resnet20_rsfgsm", 60, _between(
        switches.BrighterRouted, shape=LARGE, seed=11), family="honest"),
)  # fmt: skip
