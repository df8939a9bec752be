"""Does `--attack cascade` know when it is not done?

The cascade attacks every pair of the zoo whose answers do not change from call to call. What it
leaves is compared with the pair's label: the samples that no attack of the reference fooled, with
the stand-ins that know the defence. A number that is more than the tolerance above the label is
excused where the cascade warned or refused the model, and is an error where it did not.

`python -m benchmarks.masking_zoo.cascade` prints a line for each pair and then the rates. With
`--autoattack` it attacks each pair with AutoAttack standard as well, and compares the passes: that
takes some hours of one core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import flatguard  # noqa: F401  (makes torchattacks and pyautoattack importable together)
from benchmarks.bare_autoattack import autoattack_standard
from benchmarks.contenders import Count, counted
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
class ByAutoAttack:
    """What AutoAttack standard leaves of a pair.

    Attributes:
        right: how many stay right.
        passes: rows that went forward, and rows that went back.
    """

    right: int
    passes: int


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
        autoattack: what AutoAttack standard leaves; None where it was not run.
    """

    pair: str
    kind: str
    images: int
    right: int | None
    reference: int
    warned: bool
    passes: int
    autoattack: ByAutoAttack | None

    @property
    def says_so(self) -> bool:
        """Whether the cascade warned or refused."""
        return self.warned or self.right is None

    @property
    def is_too_high(self) -> bool:
        """Whether its number is more than the tolerance above the reference."""
        return self.right is None or self.right - self.reference > TOLERANCE * self.images


def measured(pair: Pair, label: Mapping[str, Any], beside: bool) -> Left:
    """Attack a pair's images with the cascade, and `beside` it with AutoAttack standard."""
    torch.manual_seed(SEED)
    fresh = pair.build().eval()
    model = copy.deepcopy(fresh)
    images, labels = pair.data()
    count = counted(model)
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
    kind, left = str(label["kind"]), int(label["left"])
    found_beside = by_autoattack(pair) if beside else None
    return Left(pair.name, kind, len(images), right, left, warned, passes(count), found_beside)


def by_autoattack(pair: Pair) -> ByAutoAttack | None:
    """AutoAttack standard on a pair's images; None where it wants a gradient and has none."""
    torch.manual_seed(SEED)
    try:
        found = autoattack_standard(pair.build().eval(), *pair.data(), pair.eps, SEED)
    except RuntimeError as error:
        if "grad" not in str(error):
            raise
        return None
    return ByAutoAttack(len(found.right), found.passes)


def passes(count: Count) -> int:
    """Forward and backward passes of one image."""
    return count.forwards + count.backwards


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
    parser.add_argument("--kind", default="", help="pairs of this kind: honest, masked, unscored")
    parser.add_argument("--autoattack", action="store_true", help="compare AutoAttack's passes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    train.train_all()
    rows = []
    for record in Store(file_of("fast")).records().values():
        pair, label = find(record.result.pair), record.result.label
        alone = pair.survivors is Survivors and not pair.random
        if chosen.only not in pair.name or pair.missing() is not None or not alone:
            continue
        if chosen.kind not in str(label["kind"]):
            continue
        rows.append(measured(pair, label, chosen.autoattack))
        print(line(rows[-1]), flush=True)
    print(rates(rows))


def line(row: Left) -> str:
    """What is printed of a pair."""
    what = "refused" if row.right is None else f"{row.right} of {row.images}"
    text = (
        f"{row.pair} ({row.kind}): {what}, reference {row.reference}"
        f"{', warned' if row.warned else ''}; {row.passes:,} passes"
    )
    if (other := row.autoattack) is None:
        return text
    share = row.passes / other.passes
    return f"{text}; AutoAttack {other.right} with {other.passes:,} passes: {share:.2%} of them"


if __name__ == "__main__":
    main()
