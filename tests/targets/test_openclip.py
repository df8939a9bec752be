"""open_clip's models by name, as zero-shot classifiers; open_clip ships its tokenizer."""

import json
from pathlib import Path

import pytest
import torch
from support import published

from flatguard.errors import FlatguardError, ModelError, UntrustedCodeError, UsageError
from flatguard.targets import load_target, prepare

open_clip = pytest.importorskip(
    "open_clip", reason="no open_clip: pip install 'flatguard[openclip]'"
)
SQUASH = {"interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return published.names(tmp_path)


def test_a_folder_gives_what_open_clip_gives(tmp_path: Path, classes: Path) -> None:
    model = published.open_clip_model(tmp_path / "own", **SQUASH)
    target = load_target(f"openclip:{tmp_path / 'own'}", classes=classes)
    texts = [f"a photo of a {name}." for name in ("cat", "dog", "ship", "truck", "bird")]
    images = torch.rand(3, 3, published.SIDE, published.SIDE)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    with torch.no_grad():
        theirs, _ = model.get_logits((images - 0.5) / std, open_clip.tokenize(texts))
        assert torch.allclose(target.model(images), theirs, atol=1e-4)
    ready = prepare(target, images)
    assert ready.head is not None
    assert ready.defaults.preprocessing == "resize=32x32:bilinear"
    assert not any("token_embedding" in name for name, _ in target.model.named_parameters())
    assert "a photo of a {}." in target.notes[-1]


@pytest.mark.parametrize(
    ("mode", "steps"),
    [("shortest", "resize=32:bicubic,crop=32"), ("longest", "fit=32x32:bicubic,crop=32")],
)
def test_the_other_ways_to_resize(mode: str, steps: str, tmp_path: Path, classes: Path) -> None:
    published.open_clip_model(tmp_path / "own", resize_mode=mode)
    target = load_target(f"openclip:local-dir:{tmp_path / 'own'}", classes=classes)
    assert target.defaults.preprocessing == steps


def test_a_file_of_weights_for_an_architecture(
    tmp_path: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ViT-B/32` is the paper's name of `ViT-B-32`; a small one stands in for its size."""
    (tmp_path / "small-7.json").write_text(json.dumps(published.OPEN_CLIP))
    open_clip.add_model_config(tmp_path / "small-7.json")
    published.open_clip_model(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    for name in ("small-7", "small/7"):
        target = load_target(f"openclip:{name}/own/open_clip_model.safetensors", classes=classes)
        assert target.source == "open_clip small-7, open_clip_model.safetensors"
        assert target.defaults.preprocessing == "resize=32:bicubic,crop=32"
    torch.save({"weight": print}, "evil.pt")
    with pytest.raises(UntrustedCodeError):
        load_target("openclip:small-7/evil.pt", classes=classes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ViT-B-32", "names no weights: .*openai"), ("ViT-Z-32/openai", "nearest: .*ViT-B-32"),
     ("ViT-B-32/opnai", "nearest: openai"), ("./no-folder", "no folder"),
     ("local-dir:nothing", "no folder"),
     ("hf-hub:no/model", "in the cache, and FLATGUARD")],
)  # fmt: skip
def test_nothing_there(
    name: str, expected: str, tmp_path: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FlatguardError, match=expected) as caught:
        load_target(f"openclip:{name}", classes=classes)
    assert "\n" not in str(caught.value)


def test_an_unfinished_folder(tmp_path: Path, classes: Path) -> None:
    with pytest.raises(ModelError, match="open_clip_config"):
        load_target(f"openclip:{tmp_path}", classes=classes)
    published.open_clip_model(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="expected weights in"):
        load_target(f"openclip:{tmp_path}", classes=classes)


def test_no_classes() -> None:
    with pytest.raises(UsageError, match="--classes FILE"):
        load_target("openclip:ViT-B-32/openai")
