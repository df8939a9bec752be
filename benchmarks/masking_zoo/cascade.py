"""Does `--attack cascade` know when it is not done?

The cascade attacks every pair of the zoo whose answers do not change from call to call. What it
leaves is compared with the pair's label: the samples that no attack of the reference fooled, with
the stand-ins that know the defence. A number that is more than the tolerance above the label is
excused where the cascade warned or refused the model, and is an error where it did not.

`python -m benchmarks.masking_zoo.cascade` prints a line for each pair and then the rates.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import flatguard  # noqa: F401  (makes torchattacks and pyautoattack importable together)
from benchmarks.masking_zoo import train
from benchmarks.masking_zoo.attacks import Survivors
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import find
from benchmarks.masking_zoo.results import Store, file_of
from flatguard.attacks import build_attack
from flatguard.checks.statistics import interval
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget
from flatguard.request import TOLERANCE

SEED = 0
BATCH = 128


@dataclass(frozen=True)
class Left:
    """What the cascade leaves of a pair.

    Attributes:
        pair, kind: of the zoo.
        images: how many were attacked.
        right: how many stay right; None where the model was refused.
        reference: how many stay right under the pair's reference.
        warned: whether the cascade warned.
        passes: rows that went forward, and rows that went back.
    """

    pair: str
    kind: str
    images: int
    right: int | None
    reference: int
    warned: bool
    passes: int

    @property
    def says_so(self) -> bool:
        """Whether the cascade warned or refused."""
        return self.warned or self.right is None

    @property
    def is_too_high(self) -> bool:
        """Whether its number is more than the tolerance above the reference."""
        return self.right is None or self.right - self.reference > TOLERANCE * self.images


def measured(pair: Pair, label: Mapping[str, Any]) -> Left:
    """Attack a pair's images with the cascade."""
    torch.manual_seed(SEED)
    model = pair.build().eval()
    images, labels = pair.data()
    passes = [0]

    def count(_: object, given: tuple[torch.Tensor, ...], logits: torch.Tensor) -> None:
        passes[0] += len(given[0]) * (2 if logits.requires_grad else 1)

    fresh = copy.deepcopy(model)
    handle = model.register_forward_hook(count)
    found, warned = [], False
    right: int | None = None
    try:
        for part, known in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            with torch.no_grad():
                classes = fresh(part[:2]).shape[1]
            attack = build_attack("cascade", Budget("Linf", pair.eps), classes, {})
            result = attack.perturb(model, part, known, SEED)
            found.append(result.images)
            warned = warned or any("cascade" in warning for warning in result.warnings)
        with torch.no_grad():
            right = int((fresh(torch.cat(found)).argmax(dim=1) == labels).sum())
    except AttackError as refused:
        if "second call" not in str(refused):
            raise
    finally:
        handle.remove()
    kind, left = str(label["kind"]), int(label["left"])
    return Left(pair.name, kind, len(images), right, left, warned, passes[0])


def rates(rows: list[Left]) -> str:
    """How often a number without a warning is too high, and how often a good one is warned of."""
    quiet = [row for row in rows if not row.says_so]
    good = [row for row in rows if not row.is_too_high]
    wrong = sum(row.is_too_high for row in quiet)
    needless = sum(row.says_so for row in good)
    lines = []
    for text, count, of in (
        ("without a warning and too high", wrong, len(quiet)),
        ("warned of or refused, and not too high", needless, len(good)),
    ):
        low, high = interval(count, of)
        lines.append(f"{text}: {count} of {of} ({low:.0%} to {high:.0%})")
    return "\n".join(lines)


def main() -> None:
    """Attack the documented pairs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking_zoo.cascade")
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    train.train_all()
    rows = []
    for record in Store(file_of("fast")).records().values():
        pair = find(record.result.pair)
        alone = pair.survivors is Survivors and not pair.random
        if only not in pair.name or pair.missing() is not None or not alone:
            continue
        rows.append(row := measured(pair, record.result.label))
        what = "refused" if row.right is None else f"{row.right} of {row.images}"
        print(
            f"{row.pair} ({row.kind}): {what}, reference {row.reference}"
            f"{', warned' if row.warned else ''}; {row.passes:,} passes",
            flush=True,
        )
    print(rates(rows))


if __name__ == "__main__":
    main()
