"""Reads the logits from what a classifier returns.

| returned | logits |
|---|---|
| a tensor `(n, k)`, also of probabilities | the tensor itself; `(n, k, 1, 1)` as `(n, k)` |
| an object or a mapping | its `logits`; its only tensor; or the one that `--output` names |
| a tuple or a list | its first; or the one whose position `--output` names |
| `(n, 1)` or `(n,)` | of a logit z: 0 and z; of a probability p: log(1-p) and log p |
| float16 or bfloat16; float64 behind a cast of the images | the same in float32 |

What holds several rows or many pixels an image, and what holds decisions, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.targets.hooks import forget_hooks
from flatguard.targets.precision import name_of

Form = Literal["rows", "logit", "probability"]
Path = tuple[str | int, ...]

_FAR = (1000.0, -1000.0)
"""A logit leaves [0, 1] on images of this size; what a sigmoid gives does not."""
_SHOWN, _DEEPEST = 6, 4


class UnknownOutput(Exception):
    """What a model returns holds no logits; the message says what it is instead."""


@dataclass(frozen=True)
class Reading:
    """A forward hook that turns what the model returns into its logits, `(n, k)`.

    Attributes:
        path: the names and positions that lead to the tensor.
        form: what the tensor holds.
        note: for the user, how the logits are found.
        dtype: the tensor's own type on the first images.
        in_float32: whether wider logits are rounded to float32, too: some attacks mix no types.
    """

    path: Path
    form: Form
    note: str
    dtype: torch.dtype
    in_float32: bool = False

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
        """The logits, in float32 at least."""
        found = self.tensor_of(output)
        values = found.float() if self.in_float32 or found.element_size() < 4 else found
        if values.is_inference() and not torch.is_inference_mode_enabled():
            values = values.clone()  # attacks compute with it in place, which torch refuses
        if self.form == "logit":
            one = values.reshape(-1, 1)
            return torch.cat([torch.zeros_like(one), one], dim=1)
        if self.form == "probability":
            return _log_of_both(values.reshape(-1, 1))
        return values if values.ndim == 2 else values.flatten(1)

    def tensor_of(self, output: Any) -> Tensor:
        """The tensor that holds the logits, in its own type.

        Raises:
            ModelError: this call returns something else than the first one.
        """
        found = output
        try:
            for part in self.path:
                found = _member(found, part)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise ModelError(
                f"expected logits in output {_place(self.path)}, as in the first call, got "
                f"{_described(output)}"
            ) from error
        if not isinstance(found, Tensor):
            raise ModelError(f"expected logits, as in the first call, got {_described(output)}")
        return found


def read_logits(model: nn.Module, reading: Reading) -> None:
    """Let each call of the model return the logits that this reading finds, after other hooks."""
    forget_hooks(model, Reading)
    model.register_forward_hook(reading)


def reading_of(
    model: nn.Module, images: Tensor, output: Any, wanted: str | None = None
) -> Reading | None:
    """How the model's logits are read; None where its output is the logits.

    Args:
        model: without a reading.
        images: at least one real image.
        output: the model's for these images.
        wanted: the name or position of one of several outputs.

    Raises:
        UnknownOutput: what it is instead of logits.

    Cost: two forward passes where there is one value an image and all lie within [0, 1].
    """
    count = len(images)
    path, found, note = _located(output, count, wanted)
    _check_shape(found, count, _also(output, path))
    if found.ndim > 1 and found.shape[1] > 1:
        narrow = found.is_floating_point() and found.element_size() < 4
        if not path and found.ndim == 2 and not narrow:
            return None
        return Reading(path, "rows", note, found.dtype)
    _check_scores(found)
    single = Reading(path, "logit", note, found.dtype)
    if _is_probability(model, single, images, found):
        kind = "within [0, 1] on all images, read as the probability of class 1"
        single = replace(single, form="probability")
    else:
        kind = "read as the logit of class 1"
    return replace(single, note=_joined(note, f"the model returns one value an image, {kind}"))


def _is_probability(model: nn.Module, reading: Reading, images: Tensor, values: Tensor) -> bool:
    """Whether single values are probabilities: within [0, 1], also far from real images."""
    if not _in_unit(values):
        return False
    for factor in _FAR:
        try:
            with torch.no_grad():
                far = reading.tensor_of(model(factor * images))
        except Exception:  # a model may refuse what is no image
            continue
        if not _in_unit(far):
            return False
    return True


def is_matrix(output: Any, count: int) -> TypeGuard[Tensor]:
    """Whether an output is a tensor with one row of two or more values an image."""
    return isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1 and (
        len(output) == count
    )  # fmt: skip


def _in_unit(values: Tensor) -> bool:
    known = values[~values.isnan()]
    return bool(((known >= 0) & (known <= 1)).all())


def _log_of_both(p: Tensor) -> Tensor:
    """log(1-p) and log p, finite: their softmax is 1-p and p, and no decision moves."""
    info = torch.finfo(p.dtype)
    # The largest number below 1 is 1 - eps/2: what rounds to 1 is no further than half of that.
    other = (1.0 - p).clamp_min(info.eps / 4)
    return torch.cat([other.log(), p.clamp_min(info.tiny).log()], dim=1)


def _located(output: Any, count: int, wanted: str | None) -> tuple[Path, Tensor, str]:
    """The path to the logits, the tensor there, and a note on a choice that was made."""
    path: Path = ()
    note, found = "", output
    if wanted is not None:
        part = _named(output, wanted)
        path, found = (part,), _member(output, part)
        note = f"the logits are read from {_place(path)}, as --output says"
    while not isinstance(found, Tensor):
        if len(path) > _DEEPEST:
            raise UnknownOutput(_described(output))
        part = _usual_part(found, count)
        path = (*path, part)
        note = _joined(note, _choice(found, part))
        found = _member(found, part)
    return path, found, note


def _usual_part(output: Any, count: int) -> str | int:
    """The name or position of the logits in an object, a mapping or a sequence."""
    parts = _members(output)
    if isinstance(_logits_of(output, parts), Tensor):
        return "logits"
    tensors = [key for key, value in parts.items() if isinstance(value, Tensor)]
    if isinstance(output, (tuple, list)) and parts:
        if isinstance(output, list) and len(output) == count:
            _refuse_one_each(output)
        if isinstance(output[0], Tensor) or _members(output[0]):
            return 0
    if len(tensors) == 1 and not isinstance(output, (tuple, list)):
        return tensors[0]
    advice = f"; {_advice(tensors)}" if tensors else ""
    raise UnknownOutput(f"{_described(output)}{advice}")


def _refuse_one_each(output: list[Any]) -> None:
    """Refuse a list with one entry an image."""
    if all(isinstance(each, Mapping) for each in output):
        names = ", ".join(str(key) for key in output[0])
        boxes = ", as of a detection model" if "boxes" in output[0] else ""
        raise UnknownOutput(f"a list of one dictionary ({names}) an image{boxes}")
    if all(isinstance(each, Tensor) and each.ndim < 2 for each in output):
        raise UnknownOutput("a list of one tensor an image; let its forward torch.stack them")


def _check_shape(found: Tensor, count: int, also: str) -> None:
    """Refuse what is not one row, or one value, an image.

    Raises:
        UnknownOutput: with its kind.
    """
    if found.is_complex():
        raise UnknownOutput(f"{tuple(found.shape)} of {name_of(found.dtype)}{also}")
    shape = tuple(found.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    rows = shape[0] if shape else 1
    if rows == count and len(shape) <= 2 and found.numel():
        return
    kind = ""
    if len(shape) == 2 and rows > count and rows % count == 0:
        kind = f": {rows // count} rows an image, {_VIEWS}"
    elif len(shape) == 3 and rows == count:
        kind = f": several rows an image, {_VIEWS}"
    elif len(shape) > 3 and rows == count:
        kind = f": a value for each pixel or place, {_DENSE}"
    raise UnknownOutput(f"{tuple(found.shape)}{kind}{also}")


_VIEWS = "as of views, crops or tokens; let its forward return their mean"
_DENSE = (
    "as of a segmentation model or of features; flatguard evaluates one decision an image, so let "
    "its forward pool them"
)


def _check_scores(found: Tensor) -> None:
    """Refuse single values that are decisions.

    Raises:
        UnknownOutput: the values are numbers of classes.
    """
    whole = bool((found == found.round()).all()) if found.is_floating_point() else True
    is_number = found.dtype == torch.bool or not found.is_floating_point()
    if is_number or (whole and bool((found >= 0).all()) and float(found.max()) > 1):
        raise UnknownOutput(
            f"{tuple(found.shape)} of {name_of(found.dtype)}: decisions, which have no gradient "
            "and no margin; let its forward return the logits"
        )


def _named(output: Any, wanted: str) -> str | int:
    """The part of the output that a user names."""
    parts = _members(output)
    by_text = {str(key): key for key in parts}
    if wanted in by_text:
        return by_text[wanted]
    if isinstance(output, (tuple, list)) and wanted.lstrip("-").isdigit():
        position = int(wanted)
        if -len(output) <= position < len(output):
            return position
    if not isinstance(output, (Mapping, Tensor)) and isinstance(
        getattr(output, wanted, None), Tensor
    ):
        return wanted
    raise UnknownOutput(f"{_described(output)}, which has no {wanted!r} for --output")


def _members(output: Any) -> dict[str | int, Any]:
    """What an output consists of, by name or position; nothing for a tensor or an array."""
    if isinstance(output, (Tensor, str, bytes)) or output is None:
        return {}
    if isinstance(output, Mapping):
        return dict(output.items())
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    return dict(getattr(output, "__dict__", {}))


def _logits_of(output: Any, parts: dict[str | int, Any]) -> Any:
    if isinstance(output, (Mapping, tuple, list)) and not hasattr(output, "_fields"):
        return parts.get("logits")
    return getattr(output, "logits", None)


def _member(output: Any, part: str | int) -> Any:
    if isinstance(output, (Mapping, tuple, list)) and not (
        isinstance(part, str) and hasattr(output, "_fields")
    ):
        parts: Any = output
        return parts[part]
    return getattr(output, str(part))


def _choice(output: Any, part: str | int) -> str:
    """What was taken of an output, for the user."""
    kind = type(output).__name__
    if part != 0:
        return f"the logits are {part!r} of the {kind} that the model returns"
    if len(output) == 1:
        return f"the logits are the only output in a {kind}"
    return f"the logits are the first of {len(output)} outputs in a {kind}{_also(output, (0,))}"


def _also(output: Any, path: Path) -> str:
    """The other tensors in an output, with the option that takes one."""
    if not path:
        return ""
    parts = {key: value for key, value in _members(output).items() if key != path[0]}
    tensors = {key: value for key, value in parts.items() if isinstance(value, Tensor)}
    if not tensors:
        return ""
    shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in _few(tensors))
    return f"; --output takes another one: {shapes}"


def _advice(tensors: list[str | int]) -> str:
    return f"name the one that holds the logits, such as --output {tensors[0]}"


def _described(output: Any) -> str:
    """The type of an output, and what it consists of."""
    kind = type(output).__name__
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    parts = _members(output)
    if not parts:
        return kind
    shown = ", ".join(
        f"{key} {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for key, value in _few(parts)
    )
    return f"{kind} of {shown}"


def _few(parts: dict[str | int, Any]) -> list[tuple[str | int, Any]]:
    return list(parts.items())[:_SHOWN]


def _place(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _joined(first: str, second: str) -> str:
    return "; ".join(part for part in (first, second) if part)
