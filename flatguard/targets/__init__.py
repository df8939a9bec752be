"""The classifiers under audit: one loader a file, and all return a `Target`.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""

from __future__ import annotations

from pathlib import Path

from flatguard.environment.caller import own_process
from flatguard.environment.offline import keep_offline
from flatguard.errors import UsageError
from flatguard.targets.target import Defaults, Target, make_target, prepare

__all__ = ["Defaults", "Target", "load_target", "make_target", "prepare"]

_ZOOS = ("timm", "torchvision", "hf", "openclip")
DEFAULT_MODEL_DIR = Path("models")


@own_process()
def load_target(
    name: str,
    *,
    dataset: str | None = None,
    threat_model: str | None = None,
    model_dir: Path = DEFAULT_MODEL_DIR,
    arch: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    weights_key: str | None = None,
    allow_code: bool = False,
    classes: Path | None = None,
    templates: Path | None = None,
) -> Target:
    """Load a target by name.

    Args:
        name: `demo`; a RobustBench entry or an unambiguous prefix of one; `timm:NAME`;
            `torchvision:NAME`; `hf:NAME` of transformers; `openclip:ARCH/PRETRAINED`; or the path
            of a checkpoint.
        dataset: restricts RobustBench's tables to one data set, if it is one of theirs.
        threat_model: restricts them to one threat model.
        model_dir: RobustBench's folder of checkpoints.
        arch: for a checkpoint of weights only: `module:factory` or `file.py:factory`.
        mean: for a checkpoint: normalisation inside the model, one number per channel.
        std: as `mean`.
        weights_key: for a checkpoint with several sets of weights: which one.
        allow_code: load files that run code when they are loaded.
        classes: for a zero-shot model: the file with the names of its classes.
        templates: for a zero-shot model: the file with the templates of its texts.

    Raises:
        ModelError, UntrustedCodeError, EnvironmentProblem, UsageError: each with one line.

    Example:
        >>> load_target("demo").source
        'ResNet-18 from the pyautoattack package'
    """
    keep_offline()
    kind, _, rest = name.partition(":")
    by_name = kind in _ZOOS and bool(rest)
    is_file = not by_name and _is_checkpoint(name)
    if not is_file and (arch or mean or std or weights_key):
        raise UsageError(
            f"--arch, --weights-key, --mean and --std belong to a checkpoint file, not to {name!r}"
        )
    if threat_model is not None and (is_file or name == "demo" or by_name):
        raise UsageError(f"--threat-model belongs to a RobustBench entry, not to {name!r}")
    if by_name:
        return _by_name(kind, rest, classes, templates)
    if templates is not None:
        raise UsageError(f"--templates belongs to a zero-shot model, not to {name!r}")
    if is_file:
        from flatguard.targets import checkpoint

        return checkpoint.load(
            Path(name), arch=arch, mean=mean, std=std, weights_key=weights_key,
            allow_code=allow_code,
        )  # fmt: skip
    if name == "demo":
        from flatguard.targets import demo

        return demo.load()
    from flatguard.targets import robustbench

    table = dataset if dataset in robustbench.DATASETS else None
    robustbench.check_choices(table, threat_model)
    return robustbench.load(
        robustbench.find_entry(name, table, threat_model), model_dir, allow_code
    )


def _by_name(kind: str, name: str, classes: Path | None, templates: Path | None) -> Target:
    if kind == "hf":
        from flatguard.targets import hugging_face

        return hugging_face.load(name, classes, templates)
    if kind == "openclip":
        from flatguard.targets import openclip

        return openclip.load(name, classes, templates)
    if templates is not None:
        raise UsageError(f"--templates belongs to a zero-shot model, not to '{kind}:{name}'")
    from flatguard.targets import zoo

    return zoo.load_timm(name) if kind == "timm" else zoo.load_torchvision(name)


def _is_checkpoint(name: str) -> bool:
    from flatguard.targets.checkpoint import SUFFIXES
    from flatguard.targets.shards import INDEX

    path = Path(name)
    if path.suffix in SUFFIXES or name.endswith(INDEX) or "/" in name or "\\" in name:
        return True
    if name == "demo" or not path.is_dir():
        return path.is_file()
    return any(each.name.endswith((*SUFFIXES, INDEX)) for each in path.iterdir())
