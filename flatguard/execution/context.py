"""The context of an evaluation: the resolved request, with model, data and attack loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from flatguard.attacks import Attack, AttackInfo, build_attack, check_args, find_attack
from flatguard.data import arranged, load_dataset, uses_preprocessing
from flatguard.data.class_names import in_order_of
from flatguard.data.dataset import Dataset
from flatguard.data.sampling import class_note
from flatguard.data.values import LARGEST_IMAGE
from flatguard.environment.devices import choose_device
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.errors import (
    AttackError,
    DataError,
    ModelError,
    OutOfMemory,
    UsageError,
    memory_errors,
)
from flatguard.execution.batch_size import batch_size_for
from flatguard.execution.origin import BY_NAME, Origin
from flatguard.geometry.budget import Norm
from flatguard.recording.layers import Layer, check_layers, last_layers
from flatguard.request import FAILURES, MOST_EXAMPLES, EvaluationRequest, derive_seed
from flatguard.targets import Target, load_target, prepare
from flatguard.targets.engine import faster_twin
from flatguard.targets.first_call import call_alike, first_look, model_errors
from flatguard.targets.initial import initial_copy, with_scaled_head

FIRST_LOOK = 8


@dataclass(frozen=True)
class ModelAndData:
    """The model and the data that a request names, loaded; no attack yet.

    Attributes:
        request: with its defaults filled in.
        target: the model, prepared and on its device.
        dataset: the images and labels.
        device: where everything is computed.
        initial: a copy of the model before its first call; None if it cannot be copied.
    """

    request: EvaluationRequest
    target: Target
    dataset: Dataset
    device: torch.device
    initial: nn.Module | None = field(default=None, kw_only=True)

    @property
    def count(self) -> int:
        """The number of samples."""
        return _resolved(self.request.n_examples)

    @property
    def block_size(self) -> int:
        """The number of samples that are attacked, or go forward, together."""
        return self.request.samples_together


@dataclass(frozen=True)
class EvaluationContext(ModelAndData):
    """A resolved request with all that it names loaded.

    Attributes:
        attack: the attack, with its arguments and budget.
        origin: the model and data that came from Python.
    """

    attack: Attack
    origin: Origin = BY_NAME

    @cached_property
    def layers(self) -> Sequence[Layer]:
        """The layers below the head that `--layers` names; empty without that option.

        Raises:
            UsageError: the model has no proven head, or these layers cannot be measured.
        """
        request, target = self.request, self.target
        if request.layers is None:
            return []
        if target.head is None:
            raise UsageError(f"--layers needs the model's head: {target.head_reason}")
        first = self.dataset.block(0, 1)
        with model_errors(target.name, "when --layers differentiates it twice"):
            image, label = first.images.to(self.device), first.labels.to(self.device)
            layers = last_layers(target.model, target.head, image, request.layers)
            check_layers(target.model, layers, image, label)
        return layers

    @cached_property
    def searched(self) -> Target:
        """The model that the attack searches: the target, or its twin that `--engine` names.

        Raises:
            UsageError: an option of `--engine` does not work for this model.
        """
        if not self.request.engine:
            return self.target
        images = self.dataset.block(0, min(self.count, FIRST_LOOK)).images.to(self.device)
        with memory_errors(f"the twin of {self.target.name}"):
            return faster_twin(self.target, self.request.engine, images)

    def check_layers(self) -> None:
        """Raise now if the layers that `--layers` names cannot be measured."""
        _ = self.layers

    def check_engine(self) -> None:
        """Raise now if an option of `--engine` does not work for this model."""
        _ = self.searched

    @property
    def num_classes(self) -> int:
        """The number of classes of the model."""
        return _resolved(self.target.num_classes)

    @property
    def max_failures(self) -> int:
        """The number of samples on which the model may raise."""
        return _resolved(self.request.max_failures)

    def not_judged(self) -> EvaluationContext:
        """The same, but no check runs after the attack, and the model may fail on no sample."""
        changes = {"checks": "none", "max_failures": 0}
        return replace(self, request=self.request.model_copy(update=changes))


@own_state()
def resolve(
    request: EvaluationRequest,
    target: Target | None = None,
    dataset: Dataset | None = None,
) -> EvaluationContext:
    """Load what a request names and fill in its defaults.

    Cheap checks come first, so that a typo is found before a model is loaded.

    Args:
        request: what to evaluate, and how.
        target: instead of loading `request.model`.
        dataset: instead of loading `request.dataset`.
    """
    origin = Origin(target, dataset)
    info = find_attack(request.attack)
    check_args(info, request.attack_args)
    if request.norm is not None:
        _agreed_norm(info, request.norm, None)
    device = choose_device(request.device)
    target = target or _load_target(request)
    budget_fields = _budget_fields(request, info, target)
    request.model_copy(update=budget_fields).budget().check_radius(LARGEST_IMAGE)
    loaded = load_model_and_data(request, device, target, dataset)
    resolved = loaded.request.model_copy(update={"attack": info.name, **budget_fields})
    resolved.budget().check_radius(loaded.dataset.block(0, 1).images[0].numel())
    attack = build_attack(
        info.name, resolved.budget(), _resolved(loaded.target.num_classes), request.attack_args
    )
    attack.meet(loaded.dataset, loaded.count)
    return EvaluationContext(
        resolved, loaded.target, loaded.dataset, device, attack, origin, initial=loaded.initial
    )


@own_state()
def load_model_and_data(
    request: EvaluationRequest,
    device: torch.device | None = None,
    target: Target | None = None,
    dataset: Dataset | None = None,
) -> ModelAndData:
    """Load a request's model and data, and fill in what is decided by them.

    Args:
        request: its model and data are loaded; its attack and budget stay as they are.
        device: None takes the request's.
        target: instead of loading `request.model`.
        dataset: instead of loading `request.dataset`.
    """
    device = device or choose_device(request.device)
    target = target or _load_target(request)
    if request.output is not None:
        target = replace(target, output=request.output)
    data_name = dataset.name if dataset else _dataset_name(request, target)
    opened = _opened(request, target, data_name, dataset)
    dataset = opened.dataset if request.classes else in_order_of(opened.dataset, target.classes)
    order = derive_seed(request.seed, 0, "shuffle") if request.shuffle else None
    dataset = arranged(dataset, request.size, request.classes, order)
    count = _count(request.n_examples, dataset)
    with memory_errors(f"{target.name}, its weights alone"):
        target.model.to(device)
    initial = initial_copy(target.model)
    target, dataset = _prepared_for(target, dataset, min(count, FIRST_LOOK), request, device)
    dataset.check_classes(_resolved(target.num_classes))
    resolved = request.model_copy(
        update={
            "dataset": data_name,
            "preprocessing": opened.preprocessing,
            "n_examples": count,
            "batch_size": batch_size_for(request.batch_size, target, dataset, count, device),
            "device": str(device),
            "max_failures": _max_failures(request.max_failures, count),
        }
    )
    if initial is not None:
        call_alike(initial, target.model)
    if initial is not None and request.logit_scale != 1.0 and target.head is not None:
        initial = with_scaled_head(initial, target.head)
    return ModelAndData(resolved, target, dataset, device, initial=initial)


def _load_target(request: EvaluationRequest) -> Target:
    return load_target(
        request.model,
        dataset=request.dataset,
        threat_model=request.threat_model,
        model_dir=request.model_dir,
        arch=request.arch,
        weights_key=request.weights_key,
        mean=request.mean,
        std=request.std,
        allow_code=request.allow_code,
        classes=request.classes,
        templates=request.templates,
    )


def _prepared_for(
    target: Target, dataset: Dataset, count: int, request: EvaluationRequest, device: torch.device
) -> tuple[Target, Dataset]:
    """The prepared target and its data: grey pictures where the model takes one channel."""
    first = dataset.block(0, count).images
    try:
        return _prepared(target, first, request, device), dataset
    except ModelError:
        grey = None if first.shape[1] == 1 else dataset.in_grey()
        if grey is None or not _is_taken(target, torch.zeros_like(first[:1, :1]).to(device)):
            raise
    return _prepared(target, grey.block(0, count).images, request, device), grey


def _prepared(
    target: Target, first: Tensor, request: EvaluationRequest, device: torch.device
) -> Target:
    """The target after a first look at as many of these images as the memory holds."""
    while True:
        try:
            with (
                memory_errors(f"{target.name} on {len(first)} images at once"),
                seeded(derive_seed(request.seed, 0, "first look"), device),
            ):
                seen = _seen(target, first.to(device))
                return prepare(target, seen, head=request.head, logit_scale=request.logit_scale)
        except OutOfMemory:
            if len(first) == 1:
                raise
        first = first[: len(first) // 2]


def _seen(target: Target, images: Tensor) -> Tensor:
    """The images that the model accepts; all of them if it accepts none, so that it raises."""
    try:
        first_look(target, images)
    except ModelError:
        taken = [image for image in images.split(1) if _is_taken(target, image)]
        return torch.cat(taken or [images])
    return images


def _is_taken(target: Target, image: Tensor) -> bool:
    try:
        first_look(target, image)
    except ModelError:
        return False
    return True


def describe(context: EvaluationContext) -> list[str]:
    """The first lines that a run prints: model, data, attack and budget; then what is unusual."""
    request, target = context.request, context.target
    pieces = [
        f"{target.name} ({target.source})",
        f"{context.count} of {len(context.dataset)} images from {context.dataset.name}"
        f"{' in a shuffled order' if request.shuffle else ''}",
        f"{context.attack.info.name} within {context.attack.budget}",
        f"{target.num_classes} classes",
        f"batches of {request.batch_size} on {context.device}",
        f"seed {request.seed}",
    ]
    if request.engine:
        pieces.append(f"searched with {', '.join(request.engine)}")
    if request.preprocessing:
        pieces.insert(2, f"preprocessing {request.preprocessing}")
    if request.logit_scale != 1.0:
        pieces.insert(1, f"logits × {request.logit_scale:g}")
    notes = [f"{context.attack.info.name}: {note}" for note in context.attack.notes]
    lines = ["; ".join(pieces), *target.notes, *context.dataset.notes, *notes]
    few = class_note(context.dataset, context.count)
    lines += [] if few is None else [few]
    if target.head is None:
        lines.append(
            f"κ is not measured: {target.head_reason}; logit sharpness Σp(1−p) is, in its place"
        )
    return lines


def _resolved(value: int | None) -> int:
    if value is None:
        raise ValueError("the request is not resolved")
    return value


def _agreed_norm(info: AttackInfo, wanted: Norm | None, default: Norm | None) -> Norm:
    if wanted is not None:
        if wanted not in info.norms:
            raise AttackError(
                f"--norm {wanted} does not agree with {info.name}, "
                f"which measures {' or '.join(info.norms)}"
            )
        return wanted
    if default in info.norms and default is not None:
        return default
    if len(info.norms) == 1:
        return info.norms[0]
    raise UsageError(f"--norm is needed: {info.name} measures {', '.join(info.norms)}")


def _budget_fields(request: EvaluationRequest, info: AttackInfo, target: Target) -> dict[str, Any]:
    defaults = target.defaults
    is_corruption_entry = defaults.dataset is not None and defaults.norm is None
    if is_corruption_entry and (request.norm is None or request.eps is None):
        raise UsageError(
            f"{target.name} is a corruption entry without a norm and radius of its own; "
            "name both with --norm and --eps"
        )
    norm = _agreed_norm(info, request.norm, defaults.norm)
    if norm == "none":
        if request.eps is not None:
            raise UsageError(f"{info.name} has no budget, so --eps has no meaning for it")
        return {"norm": norm, "eps": None}
    eps = request.eps or (defaults.eps if norm == defaults.norm else None)
    if eps is None:
        raise UsageError(f"--eps is needed: {target.name} has no radius of its own in {norm}")
    return {"norm": norm, "eps": eps}


@dataclass(frozen=True)
class _Opened:
    """A data set, and what its pictures are preprocessed by; None if it is used as stored."""

    dataset: Dataset
    preprocessing: str | None = None


def _opened(
    request: EvaluationRequest, target: Target, name: str, given: Dataset | None
) -> _Opened:
    """The data set; pictures as the request says, or else as the model's own config says."""
    wanted = request.preprocessing
    if wanted is None and request.resize is None:
        wanted = target.defaults.preprocessing
    pictures = given.preprocessed(wanted) if given is not None and wanted is not None else None
    if pictures is not None:
        return _Opened(pictures, wanted)
    takes_it = given is None and uses_preprocessing(name)
    if request.preprocessing is not None and not takes_it:
        raise UsageError(f"--preprocessing is for files of images; {name} is used as it is stored")
    dataset = given or load_dataset(
        name,
        n_examples=None if request.shuffle else request.n_examples or MOST_EXAMPLES,
        data_dir=request.data_dir,
        preprocessing=wanted if takes_it else None,
    )
    return _Opened(dataset, wanted if takes_it else None)


def _dataset_name(request: EvaluationRequest, target: Target) -> str:
    name = request.dataset or target.defaults.dataset
    if name is None:
        raise UsageError(f"--dataset is needed: {target.name} has no data set of its own")
    return name


def _count(wanted: int | None, dataset: Dataset) -> int:
    if wanted is not None and wanted > len(dataset):
        raise DataError(f"--n-examples {wanted}: {dataset.name} has only {len(dataset)} images")
    return wanted or min(MOST_EXAMPLES, len(dataset))


def _max_failures(wanted: int | None, count: int) -> int:
    return int(FAILURES * count) if wanted is None else wanted
