"""The target of an attack: a model with its head, its number of classes and its source."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.errors import (
    FlatguardError,
    ModelError,
    UsageError,
    memory_errors,
    one_line,
    ran_out_of_memory,
)
from flatguard.geometry.budget import Norm
from flatguard.targets.calls import call_watched, gradients_are_off, isolate_calls
from flatguard.targets.final_map import find_final_map
from flatguard.targets.head import (
    RELATIVE_TOLERANCE,
    FinalMap,
    Head,
    HeadSearch,
    relative_mismatch,
)
from flatguard.targets.hooks import forget_hooks, hook_of
from flatguard.targets.outputs import (
    Reading,
    UnknownOutput,
    read_logits,
    reading_of,
)
from flatguard.targets.parts import parts_of
from flatguard.targets.precision import (
    Cast,
    cast_images,
    casts_for,
    name_of,
    never_takes,
    own_precision,
)
from flatguard.targets.programs import batch_notes
from flatguard.targets.prompts import Prompts
from flatguard.targets.smoothing import abstention_of
from flatguard.targets.weights_hash import not_covered, weights_sha256

_PROBABILITIES = (
    "the output looks like probabilities, not logits: loss, confidence and every attack treat it "
    "as logits"
)

_LOG_PROBABILITIES = (
    "the output is log-probabilities: they reach the attack as they are, and a softmax takes them "
    "as logits"
)

_INFERENCE_PART = (
    "a part of the model runs in inference mode, so it is called without gradients: only attacks "
    "without gradients can be audited"
)


@dataclass(frozen=True)
class Defaults:
    """The settings of an entry's own benchmark; None where it defines none.

    Attributes:
        dataset: its name.
        norm: of the perturbation.
        eps: the radius.
        preprocessing: of pictures: a name of RobustBench, or steps.
        size: the height and width of the images that the model was made for.
    """

    dataset: str | None = None
    norm: Norm | None = None
    eps: str | None = None
    preprocessing: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Target:
    """A classifier of images in [0, 1], in eval mode; preprocessing is inside the model.

    Attributes:
        model: maps `(n, channels, height, width)` float32 images to `(n, num_classes)` logits,
            from `prepare` on.
        name: the resolved name: `demo`, `Carmon2019Unlabeled`, a file name.
        source: a description of where the weights come from.
        weights_sha256: over all that `weights_hash` covers.
        not_hashed: where the model holds tensors that the hash does not cover.
        abstains: whether its last class is an abstention.
        classes: the names of the classes that the model comes with, in its order.
        prompts: the texts of a zero-shot model; None for another.
        num_classes: None before `prepare`.
        head: the proven final linear map; None if there is none, with `head_reason`.
        defaults: the settings of the entry's own benchmark.
        notes: messages to the user, such as a mode that was changed.
        output: the name or position of the logits, where the model returns several outputs.
    """

    model: nn.Module
    name: str
    source: str
    weights_sha256: str
    num_classes: int | None = None
    head: FinalMap | None = None
    head_reason: str | None = None
    defaults: Defaults = field(default_factory=Defaults)
    notes: tuple[str, ...] = ()
    not_hashed: tuple[str, ...] = ()
    abstains: bool = False
    classes: tuple[str, ...] | None = None
    prompts: Prompts | None = None
    output: str | None = None


def make_target(
    model: nn.Module, name: str, source: str, defaults: Defaults | None = None
) -> Target:
    """A target in eval mode with isolated calls; a note reports a mode that was changed.

    The model itself is modified: see `flatguard.targets.restored`.

    Raises:
        ModelError: a lazy layer has no weights yet.
    """
    _refuse_lazy(model, name)
    notes = _in_eval_mode(model)
    isolate_calls(model)
    return Target(
        model,
        name,
        source,
        weights_sha256(model),
        defaults=defaults or Defaults(),
        notes=notes,
        not_hashed=not_covered(model),
    )


def _in_eval_mode(model: nn.Module) -> tuple[str, ...]:
    """Put every module that the model holds into eval mode; the notes say what was changed."""
    registered, notes = any(module.training for module in model.modules()), []
    if registered:
        notes.append("the model was in training mode; it is evaluated in eval mode")
    model.eval()
    beside = [
        (part.path, part.value)
        for part in parts_of(model)
        if isinstance(part.value, nn.Module) and part.value.training
    ]
    for _, module in beside:
        module.eval()
    if beside and not registered:
        notes.append(
            f"{beside[0][0]} was in training mode: it is not registered, so model.eval() does not "
            "reach it; it is evaluated in eval mode"
        )
    return tuple(notes)


def _refuse_lazy(model: nn.Module, name: str) -> None:
    values = (*model.named_parameters(), *model.named_buffers())
    lazy = [key for key, value in values if nn.parameter.is_lazy(value)]
    if lazy:
        raise ModelError(
            f"{name}: {lazy[0]} belongs to a lazy layer that has no weights yet; call the model on "
            "an image, or load its weights"
        )


def prepare(
    target: Target,
    images: Tensor,
    *,
    head: str | None = None,
    logit_scale: float = 1.0,
) -> Target:
    """The same target after a first test: it accepts these images, and its head is proven.

    Args:
        target: from a loader, on the images' device.
        images: a few real images, `(n, channels, height, width)` in [0, 1].
        head: the name of the final linear layer; None finds it.
        logit_scale: multiplies W and b of the head, together, in a copy of the model: every
            decision stays and only the confidence changes.

    Raises:
        ModelError: the model fails on these images, or its output is not a finite
            `(n, k >= 2)` matrix.
        UsageError: `head` is not the head, or the logits cannot be scaled.
    """
    logits = first_look(target, images)
    model = target.model
    if logit_scale != 1.0:
        model = copy.deepcopy(model)  # the caller's model stays unchanged
    with model_errors(target.name, f"on {len(images)} images"):
        search = find_final_map(model, images, name=head)
    if head is not None and search.head is None:
        raise UsageError(f"--head {head}: {search.reason}")
    if logit_scale != 1.0:
        _scale_logits(search, logit_scale)
        _check_scaled(model, images, logits, logit_scale)
    notes = _call_notes(target, logits)
    if gradients_are_off(model):
        notes += (_INFERENCE_PART,)
    notes += (*_size_note(target, images), *batch_notes(model))
    if (rule := abstention_of(model)) is not None:
        notes += (rule,)
    return replace(
        target,
        model=model,
        notes=target.notes + notes,
        num_classes=int(logits.shape[1]),
        abstains=rule is not None,
        head=search.head,
        head_reason=search.reason,
    )


def first_look(target: Target, images: Tensor) -> Tensor:
    """The logits for a few images; from now on, the model takes float32 images and returns logits.

    Hooks on the model do that where it does not: see `outputs.py` and `precision.py`.

    Raises:
        ModelError: with one line that says what is wrong with the model.
    """
    model, shape = target.model, tuple(images.shape[1:])
    isolate_calls(model)
    forget_hooks(model, Reading)
    try:
        with model_errors(target.name, f"on images of shape {shape}"):
            output = _first_output(target, images)
    except ModelError as error:
        if target.defaults.size not in (None, shape[1:]):
            raise _other_size(target, shape) from error
        raise
    with model_errors(target.name, f"on images of shape {shape}"):
        try:
            reading = reading_of(model, images, output, target.output)
        except UnknownOutput as unknown:
            raise ModelError(
                f"{target.name}: expected logits of shape (n, classes) for {len(images)} images of "
                f"shape {shape}, got {unknown}"
            ) from unknown
        cast = hook_of(behind_normalisation(model), Cast)
        if cast is not None and cast.dtype == torch.float64:
            plain = Reading((), "rows", "", cast.dtype)
            reading = replace(reading or plain, in_float32=True)
        logits: Tensor = output
        if reading is not None:
            read_logits(model, reading)
            logits = reading(model, (images,), output)
    if not torch.isfinite(logits).all():
        bad = int((~torch.isfinite(logits)).any(dim=1).sum())
        raise ModelError(
            f"{target.name} gives NaN or infinite logits on {bad} of the first {len(images)} "
            "images; check the weights and the normalisation (--mean, --std)"
        )
    return logits


def _other_size(target: Target, shape: tuple[int, ...]) -> ModelError:
    own, given = _sides(target.defaults.size or ()), _sides(shape[1:])
    return ModelError(
        f"{target.name}: expected images of {own} pixels, as it was made for, got {given}; resize "
        "them, or give pictures (a folder, a .csv, Hugging Face's data), which are resized and "
        "cropped as its config says"
    )


def _size_note(target: Target, images: Tensor) -> tuple[str, ...]:
    own, given = target.defaults.size, tuple(images.shape[2:])
    if own in (None, given):
        return ()
    return (
        f"images of {_sides(given)} pixels are given to a model that was made for "
        f"{_sides(own or ())}",
    )


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)


def _first_output(target: Target, images: Tensor) -> Any:
    """What the model returns for the images as they are, or cast to a type of its tensors."""
    front = behind_normalisation(target.model)
    forget_hooks(front, Cast)
    try:
        return call_watched(target.model, images)
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        refused = error
    for cast in casts_for(front, images):
        cast_images(front, cast)
        try:
            return call_watched(target.model, images)
        except Exception as error:
            forget_hooks(front, Cast)
            if ran_out_of_memory(error):
                raise
            if never_takes(front, images.dtype):
                refused = error  # it says what is wrong beside the type
    raise refused


def call_alike(model: nn.Module, as_model: nn.Module) -> None:
    """Give a copy of a model from before its first look the hooks that it got there."""
    front, as_front = behind_normalisation(model), behind_normalisation(as_model)
    cast, reading = hook_of(as_front, Cast), hook_of(as_model, Reading)
    if cast is not None:
        cast_images(front, cast)
    if reading is not None:
        read_logits(model, reading)


def behind_normalisation(model: nn.Module) -> nn.Module:
    """The module that gets normalised images: they are cast behind a normalisation, not before."""
    while isinstance(model, Normalized):
        model = model.model
    return model


def _call_notes(target: Target, logits: Tensor) -> tuple[str, ...]:
    """How the model is called and read, for the user."""
    notes = []
    cast = hook_of(behind_normalisation(target.model), Cast)
    reading = hook_of(target.model, Reading)
    if cast is not None:
        name = name_of(cast.dtype)
        notes.append(
            f"the model takes {name} images: the attack works on float32 images above a cast to "
            f"{name}, losses get logits in {name_of(logits.dtype)}, and results are verified in "
            f"the model's own {name}"
        )
    elif reading is not None and reading.dtype.itemsize < 4:
        notes.append(
            f"the model returns {name_of(reading.dtype)} for float32 images; losses get its logits "
            "in float32, and results are verified in the model's own precision"
        )
    if reading is not None and reading.note:
        notes.append(reading.note)
    kind = _kind_of(logits)
    return (*notes, *([kind] if kind and (reading is None or reading.form == "rows") else []))


def _kind_of(logits: Tensor) -> str:
    """The note on probabilities and their logarithms, which reach the attack unchanged."""
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-4).all()):
        return _PROBABILITIES
    total = logits.double().logsumexp(dim=1)
    if bool((logits <= 1e-6).all()) and bool((total.abs() < 1e-3).all()):
        return _LOG_PROBABILITIES
    return ""


@contextmanager
def model_errors(name: str, where: str) -> Iterator[None]:
    """Turn any error of a user's model into one line, and exhausted memory into `OutOfMemory`."""
    try:
        with memory_errors(f"{name} {where}"):
            yield
    except FlatguardError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name} fails {where}: {type(error).__name__}: {one_line(error)}; check --arch, "
            "--dataset and --batch-size"
        ) from error


def _check_scaled(model: nn.Module, images: Tensor, before: Tensor, scale: float) -> None:
    with torch.no_grad():
        after = model(images)
    moved = relative_mismatch(before, after, 1.0 / scale)
    if not bool((moved <= RELATIVE_TOLERANCE).all()):
        precision = " and ".join(own_precision(model)) or "float32"
        raise UsageError(
            f"--logit-scale {scale:g} does not keep the decisions: {precision} cannot hold the "
            "scaled layer; choose a number nearer to 1, or a power of 2"
        )


def _scale_logits(search: HeadSearch, scale: float) -> None:
    if not isinstance(search.head, Head):
        found = search.reason if search.head is None else f"the head is {search.head.name}"
        raise UsageError(
            f"--logit-scale needs a final linear layer to scale W and b together: {found}"
        )
    layer = search.head.module
    if not isinstance(layer.weight, nn.Parameter):
        raise UsageError("--logit-scale needs a plain weight; this head's weight is computed")
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.mul_(scale)


class Normalized(nn.Module):
    """Subtracts the mean and divides by the std of each channel, then calls the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        if images.shape[1] != self.mean.shape[1]:
            raise ModelError(
                f"--mean and --std have {self.mean.shape[1]} numbers, but the images have "
                f"{images.shape[1]} channels"
            )
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits
