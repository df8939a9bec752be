"""`docs/masking-zoo.md`, from what is kept: scores of every level, kinds left out, and pairs.

No model is called. Where the evidence of the pairs is kept, thresholds are also chosen without the
kind that they judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.masking_zoo import score
from benchmarks.masking_zoo.held_out import HeldOut
from benchmarks.masking_zoo.judges import judges
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.runner import Result

PAGE = Path(__file__).parents[2] / "docs" / "masking-zoo.md"
LEVELS = ("fast", "standard", "full")

INTRODUCTION = """\
# The masking zoo, measured

What `make zoo` gives: networks behind defences, labelled by attacks that were made for each of
them, and who was right about them. PGD-20 is the audited number, `reference` is what a larger
attack made for the pair leaves. The label is masked where PGD-20 is 5 points or more too high,
with its exact 95% interval; a pair whose interval holds 5 is not scored. Labels and verdicts
share no attack. Models with a memory are labelled in their
initial state; models that look at the whole batch, with each example alone beside clean images.
A randomised pair's PGD-20 is the one draw that was judged; its reference is the share of images
whose best example most of 201 fresh draws get right.

A judge *recalls* a masked pair that it warns of, and gives a *false alarm* where it warns of an
honest one. flatguard warns by `masked` and `overestimated`. A *right mechanism* is counted among
the masked pairs that a judge caught, generously where a sign cannot tell two mechanisms apart.
All intervals are exact, 95%. *Forwards* are sample-forwards: one for each image in each call of
the model; the audited attack is not counted, and every judge has its record. The other judges
look at fewer images than flatguard; below, a dash is no alarm, and the number after a sign is the
price.
"""

PEERS = """\
- *AutoAttack's flags* are its own warnings, at the points where it looks.
- *IoAF*: the six Indicators of Attack Failure with the numbers of their public code. They are
  made for a person who repairs an attack, not for an alarm; here any indicator above 0.1 is one.
- *Binarisation test*: a linear readout with two classes takes the place of the head, fitted so
  that the ball holds an adversarial example; the audited PGD-20 must find 95% of them. Ours has
  {inner} inner points (theirs 999). A model whose last linear layer is not certain is binarised
  on its outputs. Where no readout separates the points, as on most randomised models, there is no
  answer. It names no mechanism.
- *Auto-ART*: two of three signs of its public code: Square with {queries} queries finds 15 points
  more than the audited attack; the mean norm of the loss's gradient at clean images is above 0.1;
  gradients turn by more than 0.1 (one minus the cosine) under noise of 0.01. Its paper could not
  be had; the rule is its code's.
- *ART*: the four indicators of its summary writer (switching back to benign, the angle at the
  loss curve's break point, a diverging loss, zero gradients). It documents no threshold; ours is
  0.1 of the images.
"""

HELD_OUT = """\
flatguard's thresholds are tuned on other kinds than the one that they judge: each kind is left
out in turn, every threshold is set to the value (a quarter, half, once, twice or four times
today's) with the most right verdicts and mechanisms on the other kinds, of equal values the
middle one, and the kind is judged with those. The stored evidence is judged again. It was
gathered with today's thresholds, and counts that are integers stay.
"""


def page(
    levels: Mapping[str, Sequence[Result]], held: Mapping[str, HeldOut], pairs: Sequence[Pair]
) -> str:
    """The whole document.

    Args:
        levels: the results of each level.
        held: what leaving kinds out shows, by level.
        pairs: the catalogue.
    """
    from benchmarks.masking_zoo.auto_art import QUERIES
    from benchmarks.masking_zoo.binarisation import INNER

    parts = [INTRODUCTION, "## The judges\n", _judges(), PEERS.format(inner=INNER, queries=QUERIES)]
    for level in _ordered(levels):
        results = levels[level]
        parts += [
            f"## `--checks {level}`\n",
            _counts(results, len(pairs)),
            score.scores_table(results) + "\n",
        ]
        if level in held:
            parts += ["### Kinds left out\n", HELD_OUT, held[level].markdown()]
    for level in _ordered(levels):
        parts += [f"## Every pair, `--checks {level}`\n", score.pairs_table(levels[level]) + "\n"]
    parts += ["## The kinds\n", kinds_table(pairs)]
    return "\n".join(parts)


def _ordered(levels: Iterable[str]) -> list[str]:
    return sorted(levels, key=LEVELS.index)


def _judges() -> str:
    rows = [["flatguard", "every survivor of the pair's images", "this repository"]]
    rows += [[judge.name, f"at most {judge.images} images", judge.source] for judge in judges()]
    return score.table_of(("judge", "looks at", "rule"), rows) + "\n"


def _counts(results: Sequence[Result], pairs: int) -> str:
    """How many pairs, kinds and images a table rests on, and the prices side by side."""
    kinds = [result.kind for result in results]
    images = sorted(result.images for result in results)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("masked", "honest", "unscored"))
    fewer = [r for r in results if r.images < r.label["n"]]
    lines = [
        f"{len(results)} of {pairs} pairs, of {len({r.group for r in results})} kinds ({counts}), "
        f"on {images[0]} to {images[-1]} images each, {sum(images):,} in all."
    ]
    if fewer:
        lines.append(
            f"flatguard judged the first images only of {len(fewer)} pairs; labels rest on all."
        )
    peers = {r.pair: sum(answer["forwards"] for answer in r.peers.values()) for r in results}
    dearer = sum(peers[r.pair] > (r.forwards or 0) for r in results)
    lines.append(
        f"The five other judges together take {sum(peers.values()):,} forwards, more than "
        f"flatguard on {dearer} pairs; where nothing survives, flatguard attacks nothing."
    )
    return "\n".join(lines) + "\n"


def kinds_table(pairs: Sequence[Pair]) -> str:
    """Every kind with its pairs, their base networks and images."""
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.kind].append(pair)
    rows = [
        [kind, "; ".join(f"{pair.name} ({pair.network}, {pair.n})" for pair in kinds[kind])]
        for kind in sorted(kinds)
    ]
    return score.table_of(("kind", "pairs: base network, images"), rows) + "\n"
