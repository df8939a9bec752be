"""Pretrained models of timm and torchvision, by `timm:NAME` and `torchvision:NAME`."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from flatguard.environment.network import (
    HUGGING_FACE,
    PYTORCH_DOWNLOADS,
    bounded_sockets,
    cached_only,
    unreachable,
)
from flatguard.environment.pickles import pickle_code
from flatguard.environment.requirements import needed
from flatguard.errors import EnvironmentProblem, ModelError, did_you_mean, one_line
from flatguard.targets.target import Defaults, Normalized, Target, make_target


def load_timm(name: str) -> Target:
    """A pretrained timm model with the normalisation of its configuration."""
    with needed("timm", "timm", "--model timm:NAME"):
        import timm

    if not timm.is_model(name):
        raise ModelError(
            f"timm has no model {name!r}{did_you_mean(name, timm.list_models(pretrained=True))}"
        )
    model = _pretrained(
        lambda: timm.create_model(name, pretrained=True), f"timm:{name}", HUGGING_FACE
    )
    config = model.pretrained_cfg
    size = config["input_size"][-1]
    wrapped = Normalized(model, tuple(config["mean"]), tuple(config["std"]))
    return make_target(
        wrapped.eval(), f"timm:{name}", f"timm, pretrained, {size} pixels", _imagenet(size)
    )


def load_torchvision(name: str) -> Target:
    """A pretrained torchvision classifier with its default weights and their normalisation."""
    with needed("torchvision", "torchvision", "--model torchvision:NAME"):
        from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    weights = models.get_model_weights(name).DEFAULT
    model = _pretrained(
        lambda: models.get_model(name, weights=weights), f"torchvision:{name}", PYTORCH_DOWNLOADS
    )
    transform = weights.transforms()
    wrapped = Normalized(model, tuple(transform.mean), tuple(transform.std))
    size = transform.crop_size[0]
    return make_target(
        wrapped.eval(), f"torchvision:{name}", f"torchvision, {weights}", _imagenet(size)
    )


def _imagenet(size: int) -> Defaults:
    return Defaults("imagenet", "Linf", None, "Res256Crop224" if size == 224 else None)


def _pretrained(build: Any, name: str, host: str) -> Any:
    """Build with cached weights, or with downloaded ones if the network can be reached."""
    why = unreachable(host)
    try:
        with (
            contextlib.redirect_stdout(sys.stderr),
            cached_only(why),
            bounded_sockets(),
            pickle_code(),
        ):
            return build()
    except Exception as error:  # hubs raise their own trees
        reason = why or one_line(error)
        raise EnvironmentProblem(
            f"no pretrained weights for {name} in the cache, and {reason}; "
            "or name a checkpoint file with --arch"
        ) from error
