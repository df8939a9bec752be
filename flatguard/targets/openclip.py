"""Models of open_clip as zero-shot classifiers, by `openclip:ARCH/PRETRAINED`.

PRETRAINED is one of open_clip's tags, or a file of weights. `openclip:hf-hub:ORG/NAME` and
`openclip:FOLDER` name a model with its own `open_clip_config.json`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flatguard.data.picture_steps import Crop, PictureSteps, Resize
from flatguard.environment.network import HUGGING_FACE
from flatguard.environment.pickles import check_pickle
from flatguard.environment.requirements import needed
from flatguard.errors import ModelError, did_you_mean
from flatguard.targets.file_kinds import refuse_other_files
from flatguard.targets.hubs import folder_of, from_folder, from_hub
from flatguard.targets.own_inputs import OwnInputs, own_inputs
from flatguard.targets.prompts import read_prompts
from flatguard.targets.shards import listed
from flatguard.targets.target import Target, make_target
from flatguard.targets.zero_shot import (
    ZeroShot,
    check_logits,
    take_away_unused,
    test_image,
    text_embeddings,
)

_HUB, _LOCAL = "hf-hub:", "local-dir:"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def load(name: str, classes: Path | None = None, templates: Path | None = None) -> Target:
    """A zero-shot classifier of open_clip that takes images in [0, 1] of its own size.

    Args:
        name: `ARCH/PRETRAINED`, `hf-hub:ORG/NAME` or a folder.
        classes: the class names.
        templates: the templates of the prompts.

    Raises:
        ModelError, EnvironmentProblem, UntrustedCodeError, UsageError: each with one line.
    """
    with needed("open-clip-torch", "openclip", "--model openclip:ARCH/PRETRAINED"):
        import open_clip  # noqa: F401

    shown = f"openclip:{name}"
    prompts = read_prompts(classes, templates, shown)
    loaded, noted = _loaded(name, shown)
    model, tokenize = loaded.model.eval(), loaded.tokenize
    inputs = _inputs(model, shown)
    embeddings = text_embeddings(prompts, lambda texts: model.encode_text(tokenize(texts)))
    image = test_image(3, inputs.steps.size)
    _check_rule(shown, model, tokenize(prompts.examples), image)
    scale, bias = _scale_and_bias(model)
    zero_shot = ZeroShot(model, _image_features, embeddings, scale, bias)
    take_away_unused(model, lambda: zero_shot(image))
    target = make_target(inputs.around(zero_shot), shown, loaded.source, inputs.defaults())
    return replace(
        target,
        classes=prompts.names,
        prompts=prompts,
        notes=(*target.notes, prompts.note, *noted),
    )


@dataclass(frozen=True)
class _Loaded:
    """A model of open_clip, its tokenizer, and where they come from."""

    model: Any
    tokenize: Callable[[list[str]], Tensor]
    source: str


def _loaded(name: str, shown: str) -> tuple[_Loaded, tuple[str, ...]]:
    """The model that a name means, and what open_clip warns about it."""
    prefix = next((each for each in (_HUB, _LOCAL) if name.startswith(each)), "")
    rest = name.removeprefix(prefix)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if prefix == _HUB:
            found = from_hub(
                lambda: _built(name, None, "open_clip, from the hub"), shown, HUGGING_FACE, False
            )
        elif prefix == _LOCAL or Path(rest).is_dir() or rest.startswith((".", "~")):
            folder = folder_of(rest)
            if folder is None:
                raise ModelError(f"no folder {rest}")
            found = from_folder(lambda: _of_folder(folder), shown, folder)
        else:
            found = _of_registry(rest, shown)
    noted = [str(each.message) for each in caught if "QuickGELU" in str(each.message)]
    return found, tuple(f"{shown}: {' '.join(text.split())}" for text in noted[:1])


def _built(name: str, pretrained: str | None, source: str, **more: Any) -> _Loaded:
    import open_clip

    model = open_clip.create_model(
        name, pretrained=pretrained, precision="fp32", require_pretrained=True, **more
    )
    return _Loaded(model, open_clip.get_tokenizer(name), source)


def _of_registry(name: str, shown: str) -> _Loaded:
    """An architecture of open_clip with weights of a tag or a file."""
    import open_clip

    known = {each.lower(): each for each in open_clip.list_models()}
    parts = name.split("/")
    splits = [("-".join(parts[:at]), "/".join(parts[at:])) for at in range(1, len(parts) + 1)]
    fitting = [(known[a.lower()], rest) for a, rest in splits if a.lower() in known]
    if not fitting:
        raise ModelError(
            f"open_clip has no architecture {parts[0]!r}{did_you_mean(parts[0], known.values())}; "
            "expected openclip:ARCH/PRETRAINED, openclip:hf-hub:ORG/NAME or openclip:FOLDER"
        )
    architecture, pretrained = fitting[-1] if fitting[-1][1] else fitting[0]
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not pretrained:
        raise ModelError(
            f"{shown} names no weights: expected openclip:{architecture}/PRETRAINED, a file of "
            f"weights or one of {listed(tags, 12) or 'no tags'}"
        )
    file = Path(pretrained).expanduser()
    if pretrained in tags:
        return from_hub(
            lambda: _built(architecture, pretrained, f"open_clip {architecture}, {pretrained}"),
            shown, HUGGING_FACE, False,
        )  # fmt: skip
    if not file.is_file():
        raise ModelError(
            f"open_clip has no weights {pretrained!r} for {architecture}"
            f"{did_you_mean(pretrained, tags)}, and there is no such file"
        )
    source = f"open_clip {architecture}, {file.name}"
    if file.suffix != ".safetensors":
        refuse_other_files(file)
        check_pickle(file)
    return from_hub(lambda: _built(architecture, str(file), source), shown, HUGGING_FACE, False)


def _of_folder(folder: Path) -> _Loaded:
    """A model with its config, which is registered under a name of its own while it is built."""
    import open_clip

    shown = f"openclip:{folder}"
    file = folder / "open_clip_config.json"
    if not file.is_file():
        raise ModelError(f"{shown}: expected open_clip_config.json beside the weights")
    config = json.loads(file.read_text(encoding="utf-8"))
    weights = next((folder / each for each in _WEIGHTS if (folder / each).is_file()), None)
    if weights is None:
        raise ModelError(f"{shown}: expected weights in {' or '.join(_WEIGHTS)}")
    model_config = json.dumps(_with_tokenizer(config["model_cfg"], folder))
    name = f"{folder.resolve().name}-{hashlib.sha256(model_config.encode()).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / f"{name}.json").write_text(model_config, encoding="utf-8")
        open_clip.add_model_config(place)
        return _built(
            name, str(weights), f"open_clip, {weights.name}",
            force_preprocess_cfg=dict(config.get("preprocess_cfg") or {}),
        )  # fmt: skip


def _with_tokenizer(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A model's config that reads the tokenizer in its folder, where there is one."""
    text = dict(config.get("text_cfg") or {})
    if text.get("hf_tokenizer_name") and (folder / "tokenizer_config.json").is_file():
        text["hf_tokenizer_name"] = str(folder.resolve())
    return config | {"text_cfg": text}


def _inputs(model: Any, shown: str) -> OwnInputs:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    return own_inputs(
        image_transform_v2(config, is_train=False), [_steps(config)], shown, 3,
        (config.mean, config.std),
    )  # fmt: skip


def _steps(config: Any) -> PictureSteps:
    """The steps of open_clip's transform for evaluation."""
    side = config.size
    height, width = (side, side) if isinstance(side, int) else side
    filter_ = config.interpolation
    if config.resize_mode == "squash":
        return PictureSteps((Resize("resize", height, width, filter_),))
    if config.resize_mode == "longest":
        fill = config.fill_color
        return PictureSteps(
            (Resize("fit", height, width, filter_), Crop(height, width, (fill, fill, fill)))
        )
    if height == width:
        resize = Resize("resize", height, None, filter_)
    else:
        resize = Resize("cover", height, width, "bicubic")  # open_clip leaves it at its default
    return PictureSteps((resize, Crop(height, width)))


def _image_features(model: Any, images: Tensor) -> Tensor:
    found: Tensor = model.encode_image(images)
    return found


def _scale_and_bias(model: Any) -> tuple[float, float]:
    bias = getattr(model, "logit_bias", None)
    return float(model.logit_scale.detach().exp()), 0.0 if bias is None else float(bias.detach())


def _check_rule(name: str, model: Any, tokens: Tensor, image: Tensor) -> None:
    """Compare scale · cosine + bias with the model's own features, scale and bias."""
    scale, bias = _scale_and_bias(model)
    with torch.no_grad():
        texts = functional.normalize(model.encode_text(tokens), dim=-1)
        ours = ZeroShot(model, _image_features, texts, scale, bias)(image)
        if hasattr(model, "get_logits"):
            check_logits(ours, model.get_logits(image, tokens)[0], name)
