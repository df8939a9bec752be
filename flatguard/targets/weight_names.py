"""The names of weights: what wrappers, norms and prefixes do to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DataParallel, torch.compile, FSDP and activation checkpointing put into a name."""

_COUNTS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
"""Counters that change no answer: of BatchNorm, of averaging, and of a profiler."""

_NORMED_NAME = re.compile(r"(^|\.)parametrizations\.(\w+)\.(original[01]?|0\._u|0\._v)$")
_NORMED_END = {"original0": "g", "original1": "v", "original": "orig", "0._u": "u", "0._v": "v"}
"""weight_norm and spectral_norm: how names end as a parametrization, and with torch's old hooks."""

_MOST_PREFIXES = 4


def canonical(name: str) -> str:
    """A name without what wrappers put into it, and as torch's older hooks call it."""
    bare = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return _NORMED_NAME.sub(lambda m: f"{m[1]}{m[2]}_{_NORMED_END[m[3]]}", bare)


def counts(name: str) -> bool:
    """Whether a name is that of a counter, which changes no answer."""
    return name.rpartition(".")[2] in _COUNTS


def prefixes(given: Iterable[str], wanted: Iterable[str]) -> list[tuple[str, str]]:
    """What stands before the same names in the file and in the network, the most frequent first."""
    before: dict[str, list[str]] = {}
    for name in wanted:
        for prefix, rest in _cuts(name):
            before.setdefault(rest, []).append(prefix)
    votes: Counter[tuple[str, str]] = Counter()
    for name in given:
        for prefix, rest in _cuts(name):
            votes.update((prefix, lacking) for lacking in before.get(rest, ()))
    del votes["", ""]
    return [pair for pair, _ in votes.most_common(_MOST_PREFIXES)]


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """A name as prefix and rest; a rest such as `weight` alone says nothing, and is left out."""
    parts = name.split(".")
    yield "", name
    for cut in range(1, len(parts) - 1):
        yield ".".join(parts[:cut]) + ".", ".".join(parts[cut:])
    if len(parts) == 2:
        yield parts[0] + ".", parts[1]


def without_own_prefixes(given: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The names of the file without a prefix for each part; empty if two become one, or none."""
    shorter: dict[str, str] = {}
    for short, name in given.items():
        parts = short.split(".")
        ends = (".".join(parts[cut:]) for cut in range(len(parts) - 1))
        found = next((end for end in ends if end in wanted), short)
        if found in shorter:
            return {}
        shorter[found] = name
    return shorter if all(name in shorter or counts(name) for name in wanted) else {}
