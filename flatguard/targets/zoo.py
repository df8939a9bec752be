"""Pretrained models of timm and torchvision, by `timm:NAME` and `torchvision:NAME`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from torch import nn

from flatguard.data.picture_steps import Crop, PictureSteps, Resize, parse_steps
from flatguard.environment.network import HUGGING_FACE, PYTORCH_DOWNLOADS
from flatguard.environment.requirements import needed
from flatguard.errors import ModelError, did_you_mean
from flatguard.targets.hubs import folder_of, from_folder, from_hub
from flatguard.targets.own_inputs import own_inputs
from flatguard.targets.target import Target, make_target

_HUB, _LOCAL = "hf-hub:", "local-dir:"
_IMAGENET = 1000


def load_timm(name: str) -> Target:
    """A pretrained timm model with the preprocessing of its own data config.

    Args:
        name: of timm's models; `hf-hub:ORG/NAME`; or a folder that timm wrote for the hub, also as
            `local-dir:FOLDER`.

    Raises:
        ModelError, EnvironmentProblem: each with one line.
    """
    with needed("timm", "timm", "--model timm:NAME"):
        import timm

    shown, prefix = f"timm:{name}", next((p for p in (_HUB, _LOCAL) if name.startswith(p)), "")
    rest = name.removeprefix(prefix)
    folder = folder_of(rest) if prefix or "/" in name or Path(name).is_dir() else None
    if folder is not None:
        model, source = from_folder(lambda: _of_folder(folder), shown, folder), "a local folder"
    elif prefix == _LOCAL:
        raise ModelError(f"no folder {rest}")
    elif prefix or "/" in name:
        model = from_hub(
            lambda: timm.create_model(f"{_HUB}{rest}", pretrained=True), shown, HUGGING_FACE, False
        )
        source = "pretrained, from the hub"
    else:
        if not timm.is_model(name):
            raise ModelError(
                f"timm has no model {name!r}{did_you_mean(name, timm.list_models(pretrained=True))}"
            )
        model = from_hub(lambda: timm.create_model(name, pretrained=True), shown, HUGGING_FACE)
        source = "pretrained"
    return _timm_target(model, shown, source)


def _timm_target(model: Any, shown: str, source: str) -> Target:
    from timm.data import create_transform, resolve_model_data_config

    if not getattr(model, "num_classes", 1):
        raise ModelError(
            f"{shown} is no classifier: it gives features and has no classes; name a model with a "
            "classifier"
        )
    config = resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    inputs = own_inputs(
        create_transform(**config), [_timm_steps(config)], shown, channels,
        (config["mean"], config["std"]),
    )  # fmt: skip
    dataset = "imagenet" if model.num_classes == _IMAGENET else None
    source = f"timm, {source}, {height if height == width else f'{height} x {width}'} pixels"
    return make_target(inputs.around(model), shown, source, inputs.defaults(dataset))


def _timm_steps(config: dict[str, Any]) -> PictureSteps:
    """The steps of timm's transform for evaluation."""
    _, height, width = config["input_size"]
    high, wide = (math.floor(side / config["crop_pct"]) for side in (height, width))
    filter_, mode = config["interpolation"], config["crop_mode"]
    if mode == "squash":
        resize = Resize("resize", high, wide, filter_)
    elif mode == "border":
        fill = [round(255 * value) for value in config["mean"]]
        resize = Resize("fit", high, wide, filter_)
        return PictureSteps((resize, Crop(height, width, (fill[0], fill[-2], fill[-1]))))
    elif high == wide:
        resize = Resize("resize", high, None, filter_)
    else:
        resize = Resize("cover", high, wide)  # timm leaves the filter at its default here
    return PictureSteps((resize, Crop(height, width)))


def _of_folder(folder: Path) -> nn.Module:
    """The model that timm wrote to a folder: `config.json` beside its weights."""
    import timm

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "architecture" not in config:
        raise ModelError(
            f"timm:{folder}: config.json names no architecture of timm; transformers' models are "
            "named by hf:"
        )
    own = dict(config.get("pretrained_cfg") or config)
    own |= {key: config[key] for key in ("num_classes",) if key in config}
    weights = next((folder / each for each in _WEIGHTS if (folder / each).is_file()), None)
    if weights is None:
        raise ModelError(f"timm:{folder}: expected weights in {' or '.join(_WEIGHTS)}")
    architecture = str(own.pop("architecture", None) or config["architecture"])
    if not timm.is_model(architecture):
        raise ModelError(
            f"timm has no model {architecture!r}{did_you_mean(architecture, timm.list_models())}"
        )
    own |= {"source": "timm", "hf_hub_id": None, "url": "", "custom_load": False}
    own["file"] = str(weights)
    arguments = config.get("model_args") or {}
    built: nn.Module = timm.create_model(
        architecture, pretrained=True, pretrained_cfg=own, **arguments
    )
    return built


_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load_torchvision(name: str) -> Target:
    """A pretrained torchvision classifier with its default weights and their preprocessing."""
    with needed("torchvision", "torchvision", "--model torchvision:NAME"):
        from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    weights = models.get_model_weights(name).DEFAULT
    shown = f"torchvision:{name}"
    model = from_hub(lambda: models.get_model(name, weights=weights), shown, PYTORCH_DOWNLOADS)
    transform = weights.transforms()
    filter_ = transform.interpolation.value
    steps = parse_steps(
        f"resize={transform.resize_size[0]}:{filter_},crop={transform.crop_size[0]}"
    )
    inputs = own_inputs(transform, [steps], shown, 3, (transform.mean, transform.std))
    return make_target(
        inputs.around(model), shown, f"torchvision, {weights}", inputs.defaults("imagenet")
    )
