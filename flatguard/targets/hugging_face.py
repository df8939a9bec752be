"""Models of transformers, by `hf:ORG/NAME` or `hf:./folder`.

Image classifiers, and the zero-shot models of images and texts (CLIP, SigLIP). The model's own code
is transformers' own: code that a repository brings along is never run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from flatguard.environment.requirements import needed
from flatguard.errors import ModelError
from flatguard.targets.hugging_face_files import Repository
from flatguard.targets.prompts import only_for_zero_shot, read_prompts
from flatguard.targets.shards import listed
from flatguard.targets.target import Target, make_target


def load(name: str, classes: Path | None = None, templates: Path | None = None) -> Target:
    """A classifier of transformers that takes images in [0, 1] of its own size.

    Args:
        name: `ORG/NAME` of the hub, or a folder that `save_pretrained` wrote.
        classes: the class names of a zero-shot model.
        templates: its templates.

    Raises:
        ModelError, EnvironmentProblem, UntrustedCodeError, UsageError: each with one line.
    """
    with needed("transformers", "transformers", "--model hf:NAME"):
        import transformers

    repository = Repository.of(name)
    config = repository.read(lambda **how: transformers.AutoConfig.from_pretrained(**how))
    if _is_zero_shot(config):
        from flatguard.targets import hugging_face_texts

        prompts = read_prompts(classes, templates, repository.shown)
        return hugging_face_texts.zero_shot_target(repository, config, prompts)
    only_for_zero_shot(templates, repository.shown)
    return _classifier_target(repository, config)


def _is_zero_shot(config: Any) -> bool:
    """Whether a config is that of a model of images and texts, and not of a classifier on it."""
    from transformers.models.auto import modeling_auto

    if type(config) not in modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING:
        return False
    named = getattr(config, "architectures", None) or ()
    return not any("ForImageClassification" in str(each) for each in named)


class Logits(nn.Module):
    """An image classifier of transformers whose output is its logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(n, classes)` of normalised images."""
        logits: Tensor = self.model(pixel_values=images, return_dict=True).logits
        return logits


def _classifier_target(repository: Repository, config: Any) -> Target:
    import transformers
    from transformers.models.auto import modeling_auto

    named = listed([str(each) for each in getattr(config, "architectures", None) or ()])
    kind = f"{config.model_type}{f' ({named})' if named else ''}"
    if type(config).__name__.startswith("TimmWrapper"):
        raise ModelError(
            f"{repository.shown} is a model of timm; name it by "
            f"timm:{'' if repository.folder else 'hf-hub:'}{repository.name}"
        )
    if type(config) not in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{repository.shown} is {kind}: expected an image classifier of transformers, or a "
            "zero-shot model such as CLIP and SigLIP"
        )
    if getattr(config, "problem_type", None) == "multi_label_classification":
        raise ModelError(
            f"{repository.shown} gives several labels to an image (problem_type "
            "multi_label_classification): expected a classifier with one class an image"
        )
    inputs = repository.inputs(config)
    model = repository.weights(transformers.AutoModelForImageClassification)
    source = repository.source(model, config)
    target = make_target(inputs.around(Logits(model)), repository.shown, source, inputs.defaults())
    return replace(target, classes=_class_names(config))


def _class_names(config: Any) -> tuple[str, ...] | None:
    """The names in the config, where they are more than LABEL_0, LABEL_1, ..."""
    given = getattr(config, "id2label", None) or {}
    names = tuple(str(given[number]) for number in sorted(given) if isinstance(number, int))
    automatic = all(name == f"LABEL_{number}" for number, name in enumerate(names))
    unique = len(set(names)) == len(names) == config.num_labels
    return names if unique and not automatic else None
