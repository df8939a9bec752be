"""Data from Python through a whole run: the same evidence as arrays, also when it is resumed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.architectures import tiny
from support.evidence_files import evidence_files
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flatguard
from flatguard.errors import DataError

Images = tuple[torch.Tensor, torch.Tensor]
ASK = {"norm": "Linf", "eps": "8/255", "checks": "none", "batch_size": 6}


def test_a_loader_gives_the_evidence_of_its_arrays(tiny_data: Images, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    loader = DataLoader(TensorDataset(*tiny_data), batch_size=5)
    found = []
    for name, data in {"pair": tiny_data, "loader": loader, "list": list(loader)}.items():
        run = flatguard.evaluate(model, "torchattacks:PGD", data=data, out=tmp_path / name, **ASK)
        found.append(evidence_files(run.path))
    assert found[0] == found[1] == found[2]
    part = flatguard.evaluate(
        model, "torchattacks:PGD", data=loader, out=tmp_path / "part", shard="1/2", **ASK
    )
    whole = flatguard.resume(part, model=model, data=loader)
    assert evidence_files(whole.path) == found[0]
    other = TensorDataset(1 - tiny_data[0], tiny_data[1])
    with pytest.raises(flatguard.FlatguardError, match="has other images now"):
        flatguard.audit(whole, checks="fast", model=model, data=DataLoader(other))


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        return logits


def test_grey_pictures_for_a_model_of_one_channel(tmp_path: Path) -> None:
    (tmp_path / "data" / "0").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "0" / f"{number}.png")
    model = Grey().eval()
    run = flatguard.evaluate(model, "torchattacks:FGSM", data=tmp_path / "data", **ASK)
    assert run.manifest.data.image_shape == (1, 8, 8)
    pictures = ([Image.open(file) for file in sorted((tmp_path / "data" / "0").iterdir())], [0] * 3)
    again = flatguard.evaluate(model, "torchattacks:FGSM", data=pictures, **ASK)
    assert again.manifest.data.sha256 == run.manifest.data.sha256
    Image.new("RGB", (8, 8), "red").save(tmp_path / "data" / "0" / "9.png")
    with pytest.raises(DataError, match="is in colour"):
        flatguard.evaluate(model, "torchattacks:FGSM", data=tmp_path / "data", **ASK)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels(channels: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 4)).eval()
    data = (torch.rand(3, channels, 8, 8), torch.arange(3))
    run = flatguard.evaluate(model, "torchattacks:FGSM", data=data, **{**ASK, "checks": "fast"})
    assert run.manifest.data.image_shape == (channels, 8, 8)
    assert (run.path / "report.html").is_file()
