"""transformers' models of images and texts, such as CLIP and SigLIP, as zero-shot classifiers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flatguard.errors import ModelError
from flatguard.targets.hugging_face_files import Repository, channels_of
from flatguard.targets.prompts import Prompts
from flatguard.targets.target import Target, make_target
from flatguard.targets.zero_shot import (
    ZeroShot,
    check_logits,
    take_away_unused,
    test_image,
    text_embeddings,
)

_LONGEST = 512
"""Most tokens of a text, where neither the model nor its tokenizer says."""
_NEEDED = ("get_text_features", "get_image_features", "logit_scale")


def zero_shot_target(repository: Repository, config: Any, prompts: Prompts) -> Target:
    """A classifier whose classes are texts; the part that reads texts is taken away.

    Raises:
        ModelError: the model is no scale · cosine + bias, or a file is missing.
    """
    import transformers

    inputs = repository.inputs(config)
    model = repository.weights(transformers.AutoModelForZeroShotImageClassification)
    source = repository.source(model, config)
    if not all(hasattr(model, part) for part in _NEEDED):
        raise ModelError(
            f"{repository.shown}, a {type(model).__name__}, compares images and texts by another "
            "rule than scale · cosine + bias; wrap it in a model of your own, --arch"
        )
    tokens = _Tokens(repository.read(transformers.AutoTokenizer.from_pretrained), config)
    embeddings = text_embeddings(prompts, lambda texts: _text_features(model, tokens.of(texts)))
    image = test_image(channels_of(config), inputs.steps.size)
    _check_rule(repository.shown, model, tokens.of(prompts.examples), image)
    scale, bias = _scale_and_bias(model)
    zero_shot = ZeroShot(model, _image_features, embeddings, scale, bias)
    take_away_unused(model, lambda: zero_shot(image))
    target = make_target(inputs.around(zero_shot), repository.shown, source, inputs.defaults())
    notes = [prompts.note]
    if cut := tokens.number_cut(prompts):
        notes.append(f"{cut} texts of classes are longer than {tokens.longest} tokens and are cut")
    return replace(target, classes=prompts.names, prompts=prompts, notes=(*target.notes, *notes))


@dataclass(frozen=True)
class _Tokens:
    """A tokenizer, and the number of tokens that the model reads."""

    tokenizer: Any
    config: Any

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        text = getattr(self.config, "text_config", self.config)
        positions = getattr(text, "max_position_embeddings", None) or _LONGEST
        return int(min(positions, self.tokenizer.model_max_length))

    def of(self, texts: list[str]) -> Any:
        """Tokens of one length: SigLIP reads the padding, and CLIP does not see it."""
        return self.tokenizer(
            texts, padding="max_length", max_length=self.longest, truncation=True,
            return_tensors="pt",
        )  # fmt: skip

    def number_cut(self, prompts: Prompts) -> int:
        """How many texts have more tokens than the model reads."""
        texts = [text for each in range(len(prompts.words)) for text in prompts.of_class(each)]
        return sum(len(ids) > self.longest for ids in self.tokenizer(texts)["input_ids"])


def _features(output: Any) -> Tensor:
    """Features in the space of images and texts: a tensor, or the pooled output of an object."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found


def _text_features(model: Any, tokens: Any) -> Tensor:
    return _features(model.get_text_features(**tokens))


def _image_features(model: Any, images: Tensor) -> Tensor:
    return _features(model.get_image_features(pixel_values=images))


def _scale_and_bias(model: Any) -> tuple[float, float]:
    bias = getattr(model, "logit_bias", None)
    return float(model.logit_scale.detach().exp()), 0.0 if bias is None else float(bias.detach())


def _check_rule(name: str, model: Any, tokens: Any, image: Tensor) -> None:
    """Compare scale · cosine + bias with the model's own logits of an image for a few texts."""
    scale, bias = _scale_and_bias(model)
    with torch.no_grad():
        texts = functional.normalize(_text_features(model, tokens), dim=-1)
        ours = ZeroShot(model, _image_features, texts, scale, bias)(image)
        theirs = model(pixel_values=image, **tokens).logits_per_image
    check_logits(ours, theirs, name)
