"""Models with a memory, models that look at the whole batch, and those that only seem to."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.masking_zoo import networks, pair
from benchmarks.masking_zoo.attacks import StandIn
from benchmarks.masking_zoo.deciding import AloneInCleanBatch, InInitialState
from benchmarks.masking_zoo.defences.batches import (
    BatchCentred,
    BatchScaled,
    BatchStatistics,
    FrozenBatch,
)
from benchmarks.masking_zoo.defences.stateful import (
    Cached,
    Counting,
    ExactCache,
    Locked,
    Rejecting,
    Watching,
)
from benchmarks.masking_zoo.pair import Defend, Plan
from benchmarks.masking_zoo.pairs.making import (
    BASE,
    HALF,
    PGD_CNN,
    STATE,
    WEAK,
    WIDE,
    defended,
    honest,
    with_light_budgets,
)

LOCKED, CACHED, STREAM, BATCH = (
    "locked answers", "cached answers", "query streams", "batch-dependent network",
)  # fmt: skip


def centred(network: str, share: float) -> Defend:
    """The batch's mean image exchanged for that of other images."""

    def defend(net: nn.Module) -> nn.Module:
        return BatchCentred(net, networks.calibration(network)[0], share)

    return defend


def frozen(network: str, n: int) -> Plan:
    """The model beside clean images, then the bare network."""

    def plan(model: nn.Module, net: nn.Module) -> list[StandIn]:
        clean = networks.load(network).images[:n]
        return [StandIn(FrozenBatch(model, clean)), StandIn(net)]

    return plan


STATEFUL = (
    defended("digits-locked", "digits", 100, partial(Locked, reach=0.4, after=3), LOCKED, STATE,
             pair.bare, survivors=InInitialState),
    defended("cnn-pgd-locked", PGD_CNN, 100, partial(Locked, reach=0.02, after=2), LOCKED, STATE,
             pair.bare, survivors=InInitialState),
    defended("resnet20-locked", "resnet20", 40, partial(Locked, reach=0.1, after=3), LOCKED, STATE,
             pair.bare, survivors=InInitialState),
    defended("digits-robust-cached", "digits_robust", 100, partial(Cached, cell=2, reach=0.15),
             CACHED, STATE, pair.bare, survivors=InInitialState),
    defended("cnn-wide-cached", WIDE, 100, partial(Cached, cell=8, reach=0.01), CACHED, STATE,
             pair.bare, survivors=InInitialState),
    defended("digits-rejecting", "digits", 100, partial(Rejecting, levels=2, share=0.3), STREAM,
             STATE, pair.bare, survivors=InInitialState),
    defended("cnn-pgd-rejecting", PGD_CNN, 100, partial(Rejecting, levels=10, share=0.5), STREAM,
             STATE, pair.bare, survivors=InInitialState),
    honest("digits-robust-watching", STREAM, "digits_robust", 100,
           partial(Watching, reach=0.4, after=3), pair.bare),
    honest("cnn-wide-watching", STREAM, WIDE, 100, partial(Watching, reach=0.02, after=3),
           pair.bare, radius=HALF),
    honest("digits-robust-exact-cache", CACHED, "digits_robust", 150, ExactCache, pair.bare),
    honest("cnn-base-exact-cache", CACHED, BASE, 150, ExactCache, pair.bare, radius=HALF),
    honest("digits-robust-counting", LOCKED, "digits_robust", 150, Counting, pair.bare),
    honest("cnn-pgd-counting", LOCKED, PGD_CNN, 150, Counting, pair.bare, radius=HALF),
)  # fmt: skip

BATCHES = (
    defended("resnet20-batch-statistics", "resnet20", 40, BatchStatistics, BATCH, WEAK,
             frozen("resnet20", 40), survivors=AloneInCleanBatch),
    defended("digits-pooled-batch-statistics", "digits_pooled_robust", 80, BatchStatistics, BATCH,
             WEAK, frozen("digits_pooled_robust", 80), survivors=AloneInCleanBatch),
    defended("cnn-pgd-batch-centred", PGD_CNN, 80, centred(PGD_CNN, 1.0), BATCH, WEAK,
             frozen(PGD_CNN, 80), survivors=AloneInCleanBatch),
    defended("digits-robust-batch-centred", "digits_robust", 80, centred("digits_robust", 1.0),
             BATCH, WEAK, frozen("digits_robust", 80), survivors=AloneInCleanBatch),
    honest("digits-robust-batch-scaled", BATCH, "digits_robust", 100, BatchScaled, pair.bare),
    honest("cnn-wide-batch-scaled", BATCH, WIDE, 100, BatchScaled, pair.bare, radius=HALF),
)  # fmt: skip

REMEMBERING = with_light_budgets((*STATEFUL, *BATCHES))
