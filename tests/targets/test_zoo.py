"""timm: and torchvision: names, without a network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import published

import flatguard
from flatguard.errors import EnvironmentProblem, ModelError, UntrustedCodeError, UsageError


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_no_weights_and_no_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache
    with pytest.raises(EnvironmentProblem, match=r"in the cache, and FLATGUARD_OFFLINE") as caught:
        flatguard.load_target(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm:resnet81", "torchvision:resnet19"])
def test_an_unknown_name_lists_the_nearest(name: str) -> None:
    with pytest.raises(ModelError, match=r"nearest: .*resnet18|nearest: .*resnet"):
        flatguard.load_target(name)


def test_a_file_option_for_a_name() -> None:
    with pytest.raises(UsageError, match="belong to a checkpoint file"):
        flatguard.load_target("demo", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


GREY = {"input_size": [1, 28, 28], "mean": [0.5], "std": [0.25]}


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}), ("convnext_atto", {}),
     ("resnet10t", {"in_chans": 1, "pretrained_cfg_overlay": GREY})],
)  # fmt: skip
def test_a_folder_of_timm(architecture: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = published.timm_model(tmp_path, architecture, **arguments)
    config = timm.data.resolve_model_data_config(model)
    target = flatguard.load_target(f"timm:{tmp_path}")
    channels = arguments.get("in_chans", 3)
    images = torch.rand(2, channels, *config["input_size"][1:])[:, :, :32, :32]
    mean, std = (torch.tensor(config[k][:channels]).view(-1, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        assert torch.allclose(target.model(images), model((images - mean) / std), atol=1e-5)
    assert target.defaults.dataset is None
    assert flatguard.load_target(f"timm:local-dir:{tmp_path}").weights_sha256 == (
        target.weights_sha256
    )


@pytest.mark.parametrize(
    ("mode", "size", "steps"),
    [("center", (32, 32), "resize=40:bilinear,crop=32"),
     ("center", (32, 48), "cover=40x60:bilinear,crop=32x48"),
     ("squash", (32, 32), "resize=40x40:bilinear,crop=32"),
     ("border", (32, 32), "fit=40x40:bilinear,crop=32:124/116/104")],
)  # fmt: skip
def test_every_crop_mode_of_timm(
    mode: str, size: tuple[int, int], steps: str, tmp_path: Path
) -> None:
    published.timm_model(tmp_path, "resnet10t")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["pretrained_cfg"] |= {
        "input_size": [3, *size], "crop_pct": 0.8, "crop_mode": mode, "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    file.write_text(json.dumps(config))
    assert flatguard.load_target(f"timm:{tmp_path}").defaults.preprocessing == steps


def test_a_model_without_classes(tmp_path: Path) -> None:
    published.timm_model(tmp_path, "resnet10t", num_classes=0)
    with pytest.raises(ModelError, match="no classifier"):
        flatguard.load_target(f"timm:{tmp_path}")


def test_a_pickle_with_code_in_a_folder_of_timm(tmp_path: Path) -> None:
    published.timm_model(tmp_path, "resnet10t")
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    torch.save({"weight": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UntrustedCodeError):
        flatguard.load_target(f"timm:{tmp_path}")


@pytest.mark.parametrize("name", ["timm:hf-hub:no/model", "timm:no/model"])
def test_a_model_of_the_hub_without_a_network(name: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"in the cache, and FLATGUARD_OFFLINE"):
        flatguard.load_target(name)


def test_a_pretrained_torchvision_model_has_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights lie in the cache under the name that torchvision expects."""
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.SqueezeNet1_1_Weights.DEFAULT
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save(models.squeezenet1_1().state_dict(), cached)
    target = flatguard.load_target("torchvision:squeezenet1_1")
    assert target.defaults.preprocessing == "resize=256:bilinear,crop=224"
    assert target.defaults.size == (224, 224)
