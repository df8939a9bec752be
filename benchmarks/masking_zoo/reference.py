"""The label of a pair: what a stronger attack, made for that pair, shows about its number.

The audited attack is torchattacks' PGD-20 from the clean image. `overestimate` is the share of all
samples that survive it but fall to the reference. A pair is masked where the exact 95% interval of
that share lies at 5 points or more, honest where it lies below, and otherwise not scored. What the
construction intends plays no part.
"""

from __future__ import annotations

import copy
import json
import random
import time
from dataclasses import asdict, dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import flatguard  # noqa: F401  (makes torchattacks and pyautoattack importable together)
from benchmarks.masking_zoo import fingerprint
from benchmarks.masking_zoo.attacks import Survivors, attack_all
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.train import CACHE

TOLERANCE = 0.05
LEVEL = 0.95
SEED = 20


@dataclass(frozen=True)
class Label:
    """What was measured on one pair.

    Attributes:
        n: samples.
        clean: how many are right.
        audited: how many are right and survive the audited attack.
        left: how many of those survive the reference too.
        low, high: of the 95% interval of the overestimate.
        kind: `masked`, `honest` or `unscored`.
        fell_to: how many samples the audited attack left for each reference attack.
        error: why the audited attack could not run; its number is then the clean one.
        seconds: that the label took.
    """

    pair: str
    n: int
    clean: int
    audited: int
    left: int
    low: float
    high: float
    kind: str
    fell_to: dict[str, int]
    error: str | None
    seconds: float

    @property
    def overestimate(self) -> float:
        """The share of all samples that only the reference fools."""
        return (self.audited - self.left) / self.n


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson, 95%; everything is possible where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def kind_of(low: float, high: float) -> str:
    """`masked`, `honest`, or `unscored` where the interval holds the tolerance."""
    if low >= TOLERANCE:
        return "masked"
    return "honest" if high < TOLERANCE else "unscored"


def label(pair: Pair, fresh: bool = False) -> Label:
    """The label from the cache, or measured; `fresh` measures in any case."""
    model = pair.build()
    file = CACHE / "labels" / f"{pair.name}-{fingerprint.of_label(pair, model)[:16]}.json"
    if file.is_file() and not fresh:
        return Label(**json.loads(file.read_text("utf-8")))
    found = measure(pair, model)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(found), indent=2), "utf-8")
    return found


def measure(pair: Pair, model: nn.Module) -> Label:
    """Run the audited attack on the model as it comes, then the reference on a model of its own.

    The reference attacks whoever survived; where the pair has its own way to show examples, all
    that the model got right at first, for there the audited attack's own examples may not hold.
    """
    began = time.perf_counter()
    torch.manual_seed(SEED)
    random.seed(SEED)
    images, labels = pair.data()
    untouched = copy.deepcopy(model)
    survivors = Survivors(model, images, labels, pair.random)
    survivors.once(images, "clean")
    right = survivors.rows
    examples, error = audited(model, images, labels, pair.eps)
    survivors.once(examples, "audited")
    standing = len(survivors.rows)
    if pair.survivors is not Survivors:
        survivors = pair.survivors(copy.deepcopy(untouched), images, labels, pair.random)
        survivors.rows = right
    attack_all(survivors, pair.stand_ins(untouched), pair.eps, pair.budget)
    left = len(survivors.rows)
    low, high = interval(max(0, standing - left), len(labels))
    fell_to = {k: v for k, v in survivors.fell_to.items() if k not in ("clean", "audited")}
    seconds = round(time.perf_counter() - began, 1)
    kind = kind_of(low, high)
    return Label(
        pair.name, len(labels), len(right), standing, left, low, high, kind, fell_to, error, seconds
    )


def audited(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float
) -> tuple[Tensor, str | None]:
    """The examples of PGD-20; the clean images, and why, where PGD finds no gradient at all."""
    import torchattacks

    attack = torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=20, random_start=False)
    try:
        found: Tensor = attack(images, labels).detach()
    except RuntimeError as error:
        return images, str(error).splitlines()[0]
    return found, None
