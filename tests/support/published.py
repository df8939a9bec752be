"""Models as their libraries save them: real architectures, tiny, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch

SIDE = 32
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64}  # fmt: skip
PICTURE = {"image_size": SIDE, "patch_size": 8}


def vit(folder: Path, **config: Any) -> Any:
    """A ViT of transformers with two layers, and its image processor."""
    import transformers

    torch.manual_seed(0)
    made = transformers.ViTConfig(**{**TOWER, **PICTURE, "num_labels": 5, **config})
    model = transformers.ViTForImageClassification(made).eval()
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(folder)
    return model


def convnext(folder: Path) -> Any:
    """A ConvNeXt of transformers, whose processor resizes by a share of the side."""
    import transformers

    torch.manual_seed(0)
    made = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_labels=5)
    model = transformers.ConvNextForImageClassification(made).eval()
    model.save_pretrained(folder)
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.8)
    processor.save_pretrained(folder)
    return model


def tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer over single bytes: no vocabulary can be downloaded."""
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    made = transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77
    )
    made.save_pretrained(folder)
    return made


def clip(folder: Path) -> Any:
    """A CLIP of transformers with two layers a side."""
    import transformers

    torch.manual_seed(0)
    words = tokenizer(folder)
    text = {
        **TOWER, "vocab_size": len(words), "eos_token_id": words.eos_token_id,
        "bos_token_id": words.bos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    made = transformers.CLIPConfig(
        text_config=text, vision_config={**TOWER, **PICTURE}, projection_dim=24
    )
    model = transformers.CLIPModel(made).eval()
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(
        folder
    )
    return model


def siglip(folder: Path) -> Any:
    """A SigLIP of transformers with two layers a side, a scale and a bias."""
    import transformers

    torch.manual_seed(0)
    words = tokenizer(folder)
    text = {**TOWER, "vocab_size": len(words), "projection_size": 32}
    made = transformers.SiglipConfig(text_config=text, vision_config={**TOWER, **PICTURE})
    model = transformers.SiglipModel(made).eval()
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-10.0)
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    transformers.SiglipImageProcessor(size=size).save_pretrained(folder)
    return model


OPEN_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def open_clip_model(folder: Path, **preprocess: Any) -> Any:
    """A CLIP of open_clip as its hub folders hold it."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model = CLIP(**OPEN_CLIP).eval()
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {"mean": [0.5] * 3, **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return model


def timm_model(folder: Path, architecture: str, **arguments: Any) -> Any:
    """A model of timm as its hub folders hold it."""
    import timm
    from timm.models._hub import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model(architecture, **{"num_classes": 5, **arguments}).eval()
    own = {key: value for key, value in arguments.items() if key in ("img_size", "depth")}
    save_for_hf(model, folder, model_args=own)
    return model


def names(folder: Path, *classes: str) -> Path:
    """A file for `--classes`."""
    file = folder / "classes.txt"
    file.write_text("\n".join(classes or ("cat", "dog", "ship", "truck", "bird")))
    return file
