"""The first call of a model: how it takes images, where its logits are, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flatguard.errors import (
    FlatguardError,
    ModelError,
    memory_errors,
    one_line,
    ran_out_of_memory,
)
from flatguard.targets.calls import call_watched, isolate_calls
from flatguard.targets.hooks import forget_hooks, hook_of
from flatguard.targets.normalized import behind_normalisation
from flatguard.targets.outputs import (
    Reading,
    UnknownOutput,
    read_logits,
    reading_of,
)
from flatguard.targets.precision import (
    Cast,
    cast_images,
    casts_for,
    name_of,
    never_takes,
)

if TYPE_CHECKING:
    from flatguard.targets.target import Target

_PROBABILITIES = (
    "the output looks like probabilities, not logits: loss, confidence and every attack treat it "
    "as logits"
)

_LOG_PROBABILITIES = (
    "the output is log-probabilities: they reach the attack as they are, and a softmax takes them "
    "as logits"
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


def size_note(target: Target, images: Tensor) -> tuple[str, ...]:
    """That these images have another size than those that the model was made for."""
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


def call_notes(target: Target, logits: Tensor) -> tuple[str, ...]:
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
