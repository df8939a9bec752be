"""The weights in a file as people save them: where they are in it, and how they fit a network.

A file may nest them (`state_dict`, `model`, ...), hold several of them (averaged ones beside the
others), and put wrappers' prefixes before the names (DataParallel, torch.compile, Lightning, SWA).
torch's own `load_state_dict` decides what fits.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flatguard.errors import ModelError, UsageError, one_line, shortened
from flatguard.targets.shards import listed
from flatguard.targets.weight_names import (
    canonical,
    counts,
    prefixes,
    without_own_prefixes,
)

_OTHERS = ("_extra_state", "_packed_params", "dtype")
"""Values of a state dict that may be no tensors: a module's own, and those of quantised layers."""

_AVERAGED = ("ema", "averaged", "average", "avg", "swa", "shadow", "teacher")
_USUAL = ("state_dict", "model", "model_state_dict", "net", "network", "params", "weights")
_SPARE = ("loss", "criterion", "metric", "acc", "auroc", "auc", "f1", "confusion")
"""Modules of a training program whose weights no classifier needs: losses and metrics."""

_DEEPEST = 5
_MOST_LISTED = 64


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Attributes:
        key: where it is, as `state_dict` or `ema.model`; empty for the whole file.
        tensors: by the names in the file, with the other values that modules save.
    """

    key: str
    tensors: dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """How weights fit a network.

    Attributes:
        key: which weights, with the prefix of their names: `state_dict`, `state_dict/model`.
        names: the name in the network of each name in the file.
        left_out: names in the file that are not the network's, beside its prefix.
        problems: why they do not fit; empty where they do.
        cut: the prefixes of parts of the network that are taken away.
    """

    key: str
    names: dict[str, str]
    left_out: tuple[str, ...]
    problems: dict[str, list[str]]
    cut: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many names are wrong."""
        return sum(map(len, self.problems.values()))

    @property
    def is_averaged(self) -> bool:
        """Whether the key names an average over training, such as `state_dict_ema`."""
        words = self.key.lower().replace("/", "_").replace(".", "_").split("_")
        return any(word in _AVERAGED for word in words)


@dataclass(frozen=True)
class Loaded:
    """What was loaded into a network.

    Attributes:
        key: which weights; empty for all that the file holds.
        notes: messages to the user: what else would fit, and what was left out.
    """

    key: str
    notes: tuple[str, ...]


def find_weights(content: Any) -> list[Weights]:
    """All sets of weights in the content of a file, the outermost first."""
    return list(_walk(content, "", 0))


def _walk(content: Any, key: str, depth: int) -> Iterator[Weights]:
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if isinstance(content, (list, tuple)) and len(content) <= _MOST_LISTED:
        content = {str(number): each for number, each in enumerate(content)}
        content = {name: each for name, each in content.items() if not isinstance(each, Tensor)}
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    tensors = {name: value for name, value in content.items() if _is_saved(name, value)}
    if any(isinstance(value, Tensor) for value in tensors.values()):
        yield Weights(key, tensors)
    for name, value in content.items():
        if isinstance(name, str):
            yield from _walk(value, f"{key}.{name}" if key else name, depth + 1)


def _is_saved(name: object, value: object) -> bool:
    if not isinstance(name, str):
        return False
    return isinstance(value, Tensor) or name.rpartition(".")[2] in _OTHERS


def without_weights(content: Any) -> str:
    """What a file holds that has no weights, for a message."""
    if isinstance(content, Mapping):
        if {"state", "param_groups"} <= set(content):
            return "the state of an optimizer; give the checkpoint that its model was saved in"
        return f"a dict without one ({listed([str(key) for key in content]) or 'it is empty'})"
    return f"{type(content).__name__} without one"


def load_weights(
    model: nn.Module, found: list[Weights], wanted: str | None, file: str, arch: str
) -> Loaded:
    """Load the weights of a file that fit a network.

    Where several fit, those that are no average and have a usual name are taken, and a note names
    the others.

    Args:
        model: receives the weights.
        found: in the file.
        wanted: the key of one of them; None chooses.
        file: its name, for messages.
        arch: the network's, for messages.

    Raises:
        ModelError: none fits, with the names in the file; or none is the usual one.
        UsageError: there is no such key.
    """
    fits = [fit for weights in found for fit in _fits(model, weights)]
    fitting = [fit for fit in fits if not fit.problems]
    if wanted is None:
        fits = [_with_unknown(fit, fitting) for fit in fits]
    else:
        fits = _named(fits, wanted, file)
    good = [fit for fit in fits if not fit.problems]
    if not good:
        raise ModelError(_refusal(min(fits, key=_distance), found, file, arch))
    best = _best(good, file)
    tensors = next(w.tensors for w in found if _is_of(best, w))
    _load(model, {new: tensors[old] for old, new in best.names.items()})
    return Loaded(best.key, _notes(best, fitting, file))


def _with_unknown(fit: Fit, fitting: list[Fit]) -> Fit:
    """Names that are left out are a problem, unless they are a loss, a metric or other weights."""
    known = {name for other in fitting if _base(other) == _base(fit) for name in other.names}
    unknown = [n for n in fit.left_out if n not in known and not _is_spare(n) and not counts(n)]
    if not unknown or fit.problems:
        return fit
    return replace(fit, problems={"unexpected": unknown})


def _is_spare(name: str) -> bool:
    return any(word in name.rpartition(".")[0].lower() for word in _SPARE)


def _base(fit: Fit) -> str:
    """The key of a fit's weights, without the prefix of their names."""
    return fit.key.partition("/")[0]


def _is_of(fit: Fit, weights: Weights) -> bool:
    return _base(fit) == weights.key


def _named(fits: list[Fit], wanted: str, file: str) -> list[Fit]:
    """The fits that a key names: as it is reported, or by its last part."""
    exact = [fit for fit in fits if wanted in (fit.key, fit.key.lstrip("/"))]
    chosen = exact or [fit for fit in fits if wanted in (_base(fit), _base(fit).rpartition(".")[2])]
    if not chosen:
        keys = dict.fromkeys(fit.key.lstrip("/") for fit in fits if fit.key)
        known = listed(list(keys), 8) or "none, it holds one set of weights"
        raise UsageError(f"--weights-key: {file} has no weights {wanted!r}; its keys are: {known}")
    return chosen


def _best(good: list[Fit], file: str) -> Fit:
    plain = [fit for fit in good if not fit.is_averaged] or good
    ranks = [_rank(fit) for fit in plain]
    first = [fit for fit, rank in zip(plain, ranks, strict=True) if rank == min(ranks)]
    if len(first) > 1:
        raise ModelError(
            f"{file} holds several sets of weights that fit: "
            f"{listed([fit.key for fit in first], 8)}; choose one with --weights-key"
        )
    return first[0]


def _rank(fit: Fit) -> tuple[int, int]:
    """The usual names come first, in their order; then those that are nested less."""
    key, _, prefix = fit.key.partition("/")
    last = key.rpartition(".")[2]
    usual = _USUAL.index(last) if last in _USUAL else len(_USUAL)
    inside = 0 if not prefix else 1 + (_USUAL.index(prefix) if prefix in _USUAL else len(_USUAL))
    return (inside, 0 if not key else 1 + usual)


def _notes(best: Fit, fitting: list[Fit], file: str) -> tuple[str, ...]:
    notes = []
    others = [fit for fit in fitting if fit.key != best.key]
    if others:
        keys = dict.fromkeys(fit.key.lstrip("/") or "the outermost" for fit in others)
        notes.append(
            f"{file} holds several sets of weights: {best.key.lstrip('/') or 'the outermost'} is "
            f"taken; --weights-key chooses {_either(list(keys))}"
        )
    if best.cut:
        notes.append(f"{file}: names are read without the prefixes {listed(list(best.cut))}")
    known = {name for fit in others if _base(fit) == _base(best) for name in fit.names}
    left = [name for name in best.left_out if name not in known and not counts(name)]
    if left:
        notes.append(f"{file}: left out, because the network has no such part: {listed(left)}")
    return tuple(notes)


def _fits(model: nn.Module, weights: Weights) -> list[Fit]:
    """One fit for each prefix that the names may have; the one without a prefix first."""
    wanted = {canonical(name): name for name in model.state_dict()}
    given = {canonical(name): name for name in weights.tensors}
    if len(wanted) < len(model.state_dict()) or len(given) < len(weights.tensors):
        wanted = {name: name for name in model.state_dict()}
        given = {name: name for name in weights.tensors}
    fits = [_fit(model, weights, given, wanted, "", "")]
    if not fits[0].problems:
        return fits
    for extra, lacking in prefixes(given, wanted):
        fits.append(_fit(model, weights, given, wanted, extra, lacking))
    if all(fit.problems for fit in fits):
        shorter = without_own_prefixes(given, wanted)
        if shorter:
            fit = _fit(model, weights, shorter, wanted, "", "")
            cut = {long.removesuffix(short) for short, long in shorter.items()} - {""}
            fits.append(replace(fit, cut=tuple(sorted(cut))))
    return fits


def _fit(
    model: nn.Module,
    weights: Weights,
    given: Mapping[str, str],
    wanted: Mapping[str, str],
    extra: str,
    lacking: str,
) -> Fit:
    """Load the weights with these prefixes taken away from the file's names, or put before them."""
    names, left_out = {}, []
    for short, name in given.items():
        if not short.startswith(extra):
            left_out.append(name)
            continue
        short = lacking + short[len(extra) :]
        if counts(short) and short not in wanted:
            continue
        names[name] = wanted.get(short, short)
    key = f"{weights.key}/{extra.rstrip('.')}" if extra and left_out else weights.key
    if not names:
        return Fit(key, {}, tuple(left_out), {"missing": list(wanted.values())})
    renamed = {new: weights.tensors[old] for old, new in names.items()}
    # A lazy layer takes its shape from the first weights that are loaded.
    trial = copy.deepcopy(model) if any(map(is_lazy, model.parameters())) else model
    missing, unexpected, wrong = _load(trial, renamed)
    back = {new: old for old, new in names.items()}
    found = {
        "missing": missing,
        "unexpected": [back.get(name, name) for name in unexpected],
        "wrong shape": wrong,
        "wrong type": _wrong_types(model, renamed),
        "one tensor in the network, and two in the file": _untied(model, renamed),
    }
    problems = {what: keys for what, keys in found.items() if keys}
    return Fit(key, names, tuple(left_out), problems)


def _load(model: nn.Module, state: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Load what fits: the names that are missing, unexpected, and of another shape."""
    shapes = _shapes(model)
    wrong = [
        f"{name} {tuple(state[name].shape)} for {shape}"
        for name, shape in shapes.items()
        if shape is not None and tuple(getattr(state.get(name), "shape", shape)) != shape
    ]
    if wrong:
        missing = [name for name in shapes if name not in state]
        return _but_counts(missing), [name for name in state if name not in shapes], wrong
    try:
        result = model.load_state_dict(dict(state), strict=False)
    except Exception as error:  # a network's own loading may raise anything
        return [], [], [one_line(error)]
    missing = [name for name in result.missing_keys if not _is_tied(model, name, state)]
    return _but_counts(missing), list(result.unexpected_keys), []


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """The shape of each tensor of a network; None where a lazy layer has none yet."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, value in model.state_dict().items():
        shapes[name] = (
            None if is_lazy(value) or not isinstance(value, Tensor) else tuple(value.shape)
        )
    return shapes


def _but_counts(names: list[str]) -> list[str]:
    return [name for name in names if not counts(name)]


def _is_tied(model: nn.Module, name: str, state: Mapping[str, Any]) -> bool:
    """Whether a name's tensor is also another's that was loaded: a file may hold it once."""
    own = dict(_named_tensors(model))
    tensor = own.get(name)
    return tensor is not None and any(
        other is tensor for key, other in own.items() if key != name and key in state
    )


def _wrong_types(model: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Parameters whose values in the file are whole numbers, as those of a quantised one."""
    return [
        f"{name} {_type(state[name])} for {_type(own)}"
        for name, own in model.named_parameters(remove_duplicate=False)
        if own.is_floating_point()
        and isinstance(state.get(name), Tensor)
        and not state[name].is_floating_point()
    ]


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _untied(model: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Names of one tensor of the network that have two values in the file."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, own in _named_tensors(model):
        if not is_lazy(own) and own.numel() and isinstance(state.get(name), Tensor):
            place = (own.data_ptr() or id(own), own.shape, own.stride(), own.dtype)
            names.setdefault(place, []).append(name)
    return [
        f"{first} and {other}"
        for first, *others in names.values()
        for other in others
        if not _are_same(state[first], state[other])
    ]


def _are_same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, each under all of its names."""
    return itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )


def _distance(fit: Fit) -> int:
    """How badly weights fit; a prefix of which little is explained names the wrong keys."""
    return 2 * fit.size if fit.left_out else fit.size


def _either(keys: list[str]) -> str:
    return " or ".join(shortened(key, 80) for key in keys) if len(keys) < 4 else listed(keys)


def _refusal(fit: Fit, chosen: list[Weights], file: str, arch: str) -> str:
    parts = [f"{what}: {listed(keys)}" for what, keys in fit.problems.items()]
    tensors = next(weights.tensors for weights in chosen if _is_of(fit, weights))
    where = f" ({shortened(fit.key, 80)})" if fit.key else ""
    parts.append(f"the file holds {listed(list(tensors))}")
    if set(fit.problems) == {"wrong shape"} and "Error" not in fit.problems["wrong shape"][0]:
        parts.append("let the factory build the network with the sizes of the file")
    return f"{file}{where} does not fit --arch {arch}; {'; '.join(parts)}"
