"""A resolved spec with everything loaded: defaults filled in, contradictions refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatguard.attacks import Attack, AttackInfo, build_attack, check_args, find_attack
from flatguard.errors import (
    AttackError,
    DataError,
    EnvironmentProblem,
    ModelError,
    OutOfMemory,
    UsageError,
    memory_errors,
)
from flatguard.geometry.budget import Norm
from flatguard.randomness import seeded
from flatguard.runs.spec import RunSpec, derive_seed
from flatguard.targets import Target, load_target, prepare
from flatguard.targets.datasets import DataHash, Dataset, blocks, load_dataset, uses_preprocessing
from flatguard.targets.target import first_look
from flatguard.torch_state import own_state

DEFAULT_N_EXAMPLES = 1000
LARGEST_BATCH = 128
BATCH_VALUES = 5_000_000
"""A batch holds about this many pixel values: 128 at CIFAR's size, 32 at ImageNet's."""

FIRST_LOOK = 8
FROM_PYTHON, DATA_FROM_PYTHON = "a module from Python", "images from Python"
"""What stands for a source that has no name."""


@dataclass(frozen=True)
class Origin:
    """The model and the data that came from Python, and that no spec names."""

    target: Target | None = None
    dataset: Dataset | None = None


@dataclass(frozen=True)
class Job:
    """A resolved spec with everything loaded that it names."""

    spec: RunSpec
    target: Target
    dataset: Dataset
    attack: Attack
    device: torch.device
    origin: Origin = Origin()

    @property
    def count(self) -> int:
        """How many samples are evaluated."""
        return _resolved(self.spec.n_examples)

    @property
    def num_classes(self) -> int:
        """How many classes the model has."""
        return _resolved(self.target.num_classes)

    @property
    def block_size(self) -> int:
        """How many samples are attacked together."""
        return _resolved(self.spec.batch_size)


@own_state()
def resolve(
    spec: RunSpec,
    target: Target | None = None,
    dataset: Dataset | None = None,
) -> Job:
    """Load what a spec names and fill in its defaults.

    Cheap checks come first, so that a typo is found before a model is loaded.

    Args:
        spec: what is asked for.
        target: instead of loading `spec.model`.
        dataset: instead of loading `spec.dataset`.
    """
    origin = Origin(target, dataset)
    info = find_attack(spec.attack)
    check_args(info, spec.attack_args)
    if spec.norm is not None:
        _agreed_norm(info, spec.norm, None)
    device = _device(spec.device)
    target = target or _load_target(spec)
    budget_fields = _budget_fields(spec, info, target)
    subject = load_subject(spec, device, target, dataset)
    resolved = subject.spec.model_copy(update={"attack": info.name, **budget_fields})
    attack = build_attack(
        info.name, resolved.budget(), _resolved(subject.target.num_classes), spec.attack_args
    )
    return Job(resolved, subject.target, subject.dataset, attack, device, origin)


@dataclass(frozen=True)
class Subject:
    """A prepared target on its device, with the images it is looked at on; no attack yet."""

    spec: RunSpec
    target: Target
    dataset: Dataset
    device: torch.device

    @property
    def count(self) -> int:
        """How many samples are asked for."""
        return _resolved(self.spec.n_examples)

    @property
    def block_size(self) -> int:
        """How many samples go forward together."""
        return _resolved(self.spec.batch_size)


@own_state()
def load_subject(
    spec: RunSpec,
    device: torch.device | None = None,
    target: Target | None = None,
    dataset: Dataset | None = None,
) -> Subject:
    """Load a spec's model and data, and fill in what is decided by them.

    Args:
        spec: what is asked for; its attack and budget are left as they are.
        device: None takes the spec's.
        target: instead of loading `spec.model`.
        dataset: instead of loading `spec.dataset`.
    """
    device = device or _device(spec.device)
    target = target or _load_target(spec)
    data_name = dataset.name if dataset else _dataset_name(spec, target)
    preprocessing = _preprocessing(spec, target, data_name, dataset)
    dataset = dataset or load_dataset(
        data_name,
        n_examples=spec.n_examples or DEFAULT_N_EXAMPLES,
        data_dir=spec.data_dir,
        preprocessing=preprocessing,
    )
    count = _count(spec.n_examples, dataset)
    first = dataset.block(0, min(count, FIRST_LOOK)).images
    with memory_errors(f"{target.name}, its weights alone"):
        target.model.to(device)
    target = _prepared(target, first, spec, device)
    resolved = spec.model_copy(
        update={
            "dataset": data_name,
            "preprocessing": preprocessing,
            "n_examples": count,
            "batch_size": spec.batch_size or _batch_size(first[0].numel()),
            "device": str(device),
        }
    )
    return Subject(resolved, target, dataset, device)


def _load_target(spec: RunSpec) -> Target:
    return load_target(
        spec.model,
        dataset=spec.dataset,
        threat_model=spec.threat_model,
        model_dir=spec.model_dir,
        arch=spec.arch,
        mean=spec.mean,
        std=spec.std,
        allow_code=spec.allow_code,
    )


def _prepared(target: Target, first: Tensor, spec: RunSpec, device: torch.device) -> Target:
    """The target after a first look at as many of these images as the memory holds."""
    while True:
        try:
            with (
                memory_errors(f"{target.name} on {len(first)} images at once"),
                seeded(derive_seed(spec.seed, 0, "first look"), device),
            ):
                seen = _seen(target, first.to(device))
                return prepare(target, seen, head=spec.head, logit_scale=spec.logit_scale)
        except OutOfMemory:
            if len(first) == 1:
                raise
        first = first[: len(first) // 2]


def _seen(target: Target, images: Tensor) -> Tensor:
    """The images that the model takes; all, where it takes none, for whoever says why."""
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


def data_sha256(job: Job) -> str:
    """The hash of the images and labels that a job serves, as its manifest has it."""
    hashes = DataHash()
    for _, batch in blocks(job.dataset, job.count, job.block_size):
        hashes.update(batch)
    return hashes.hexdigest()


def describe(job: Job) -> str:
    """The first line that a run prints: what is evaluated, on what, within what."""
    spec, target = job.spec, job.target
    pieces = [
        f"{target.name} ({target.source})",
        f"{job.count} of {len(job.dataset)} images from {job.dataset.name}",
        f"{job.attack.info.name} within {job.attack.budget}",
        f"{target.num_classes} classes",
        f"batches of {spec.batch_size} on {job.device}",
        f"seed {spec.seed}",
    ]
    if spec.preprocessing:
        pieces.insert(2, f"preprocessing {spec.preprocessing}")
    if spec.logit_scale != 1.0:
        pieces.insert(1, f"logits × {spec.logit_scale:g}")
    return "; ".join(pieces)


def _resolved(value: int | None) -> int:
    if value is None:
        raise ValueError("the spec is not resolved")
    return value


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        with memory_errors(f"--device {name}, for a single number"):
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EnvironmentProblem(f"--device {name} is not available here; use cpu") from error
    return device


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


def _budget_fields(spec: RunSpec, info: AttackInfo, target: Target) -> dict[str, Any]:
    defaults = target.defaults
    is_corruption_entry = defaults.dataset is not None and defaults.norm is None
    if is_corruption_entry and (spec.norm is None or spec.eps is None):
        raise UsageError(
            f"{target.name} is a corruption entry without a norm and radius of its own; "
            "name both with --norm and --eps"
        )
    norm = _agreed_norm(info, spec.norm, defaults.norm)
    if norm == "none":
        if spec.eps is not None:
            raise UsageError(f"{info.name} knows no budget, so --eps has no meaning for it")
        return {"norm": norm, "eps": None}
    eps = spec.eps or (defaults.eps if norm == defaults.norm else None)
    if eps is None:
        raise UsageError(f"--eps is needed: {target.name} has no radius of its own in {norm}")
    return {"norm": norm, "eps": eps}


def _preprocessing(
    spec: RunSpec, target: Target, data_name: str, dataset: Dataset | None
) -> str | None:
    if dataset is None and uses_preprocessing(data_name):
        return spec.preprocessing or target.defaults.preprocessing
    if spec.preprocessing is not None:
        raise UsageError(
            f"--preprocessing is for files of images; {data_name} is served as it is stored"
        )
    return None


def _dataset_name(spec: RunSpec, target: Target) -> str:
    name = spec.dataset or target.defaults.dataset
    if name is None:
        raise UsageError(f"--dataset is needed: {target.name} has no data set of its own")
    return name


def _count(asked: int | None, dataset: Dataset) -> int:
    if asked is not None and asked > len(dataset):
        raise DataError(f"--n-examples {asked}: {dataset.name} has only {len(dataset)} images")
    return asked or min(DEFAULT_N_EXAMPLES, len(dataset))


def _batch_size(values: int) -> int:
    fitting = max(1, BATCH_VALUES // values)
    return int(min(LARGEST_BATCH, 2 ** (fitting.bit_length() - 1)))
