"""The files of a model of transformers, on the hub or in a folder, and how they are read safely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flatguard.environment.network import HUGGING_FACE, unreachable
from flatguard.errors import (
    EnvironmentProblem,
    ModelError,
    UntrustedCodeError,
    one_line,
)
from flatguard.targets.hubs import folder_of, from_folder, from_hub
from flatguard.targets.image_processors import processor_inputs
from flatguard.targets.own_inputs import OwnInputs
from flatguard.targets.shards import listed


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, or a folder.

    Attributes:
        name: as transformers takes it.
        shown: in messages and manifests.
        folder: None for a repository.
    """

    name: str
    shown: str
    folder: Path | None

    @classmethod
    def of(cls, name: str) -> Repository:
        """The repository or folder that a name means."""
        folder = folder_of(name)
        return cls(str(folder or name), f"hf:{name}", folder)

    def read(self, load: Callable[..., Any], **more: Any) -> Any:
        """What one of transformers' `from_pretrained` gives, without any code of the repository."""
        offline = self.folder is not None or unreachable(HUGGING_FACE) is not None
        how = {
            "pretrained_model_name_or_path": self.name,
            "trust_remote_code": False,
            "local_files_only": offline,
            **more,
        }

        def build() -> Any:
            try:
                return load(**how)
            except ValueError as error:
                if "trust_remote_code" in str(error):
                    raise UntrustedCodeError(
                        f"{self.shown} needs code of its own repository, which is never run; give "
                        "its weights with --arch and a network that you trust"
                    ) from error
                raise ModelError(f"{self.shown} cannot be loaded: {one_line(error)}") from error

        if self.folder is not None:
            return from_folder(build, self.shown, self.folder)
        return from_hub(build, self.shown, HUGGING_FACE, allow_code=False)

    def weights(self, kind: Any) -> Any:
        """The model with all of its weights, in float32.

        Raises:
            ModelError: weights are missing in the files, so that transformers would draw them.
        """
        model, info = self.read(kind.from_pretrained, dtype=torch.float32, output_loading_info=True)
        missing = sorted(map(str, info.get("missing_keys") or ()))
        if missing:
            raise ModelError(
                f"{self.shown} has no weights for {listed(missing)}: it is no finished "
                f"{type(model).__name__}; name a model that was trained as a classifier"
            )
        return model.eval()

    def inputs(self, config: Any) -> OwnInputs:
        """What its image processor does."""
        import transformers

        try:
            processor = self.read(transformers.AutoImageProcessor.from_pretrained)
        except (ModelError, EnvironmentProblem) as error:
            raise type(error)(
                f"{error}; its image processor is needed, because it says how images are resized "
                "and normalised: save it beside the model with save_pretrained"
            ) from error
        return processor_inputs(processor, self.shown, channels_of(config))

    def source(self, model: Any, config: Any) -> str:
        """Where the model comes from, for the manifest."""
        revision = getattr(config, "_commit_hash", None)
        kind = f"transformers {type(model).__name__}"
        return f"{kind}, revision {revision[:12]}" if revision else kind


def channels_of(config: Any) -> int:
    """The number of channels that a model's config names; 3 where it names none."""
    for part in (config, getattr(config, "vision_config", None)):
        found = getattr(part, "num_channels", None)
        if isinstance(found, int):
            return found
    return 3
