"""The target of an attack: a model with its head, its number of classes and its source."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from flatguard.errors import (
    ModelError,
    UsageError,
)
from flatguard.geometry.budget import Norm
from flatguard.targets.calls import gradients_are_off, isolate_calls
from flatguard.targets.final_map import find_final_map
from flatguard.targets.first_call import call_notes, first_look, model_errors, size_note
from flatguard.targets.head import (
    RELATIVE_TOLERANCE,
    FinalMap,
    Head,
    HeadSearch,
    relative_mismatch,
)
from flatguard.targets.parts import parts_of
from flatguard.targets.precision import (
    own_precision,
)
from flatguard.targets.programs import batch_notes
from flatguard.targets.prompts import Prompts
from flatguard.targets.smoothing import abstention_of
from flatguard.targets.weights_hash import not_covered, weights_sha256

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
    notes = call_notes(target, logits)
    if gradients_are_off(model):
        notes += (_INFERENCE_PART,)
    notes += (*size_note(target, images), *batch_notes(model))
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
