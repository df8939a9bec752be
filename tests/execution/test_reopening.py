"""A run is loaded again with the model and the data that it was made with, and no others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.errors import UsageError
from flatguard.runs.json_files import write_sealed

Images = tuple[torch.Tensor, torch.Tensor]


def test_changes_since_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    run = flatguard.evaluate(**options, out=tmp_path / "run", shard="1/2")
    torch.manual_seed(5)
    kept = Path(options["model"]).read_bytes()
    save_file(tiny().state_dict(), options["model"])
    with pytest.raises(UsageError, match="has other weights now"):
        flatguard.resume(run, allow_code=True)
    Path(options["model"]).write_bytes(kept)
    images, labels = torch.load(options["data"], weights_only=True)
    torch.save((images.flip(0), labels), options["data"])
    with pytest.raises(UsageError, match="has other images now"):
        flatguard.resume(run, allow_code=True)
    torch.save((images, labels), options["data"])
    versions = {**run.manifest.versions, "torch": "1.0"}
    older = run.manifest.model_copy(update={"versions": versions})
    write_sealed(run.path / "evidence" / "manifest.json", older)
    with pytest.raises(UsageError, match=r"was begun with torch 1\.0, and here is"):
        flatguard.resume(run.path, allow_code=True)


def test_a_model_from_python_has_to_be_given_again(
    tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    model = tiny().eval()
    run = flatguard.evaluate(
        model, "torchattacks:PGD", data=tiny_data, eps=0.01, batch_size=6, shard="2/2",
        out=tmp_path / "run",
    )  # fmt: skip
    with pytest.raises(UsageError, match="its model came from Python"):
        flatguard.resume(run, allow_code=True)
    with pytest.raises(UsageError, match="its data came from Python"):
        flatguard.resume(run, model=model)
    assert flatguard.resume(run, model=model, data=tiny_data).complete


class Scaled(nn.Module):
    """Two models of the same weights; what they differ in is no tensor that torch registers."""

    def __init__(self, factor: float, place: str):
        super().__init__()
        torch.manual_seed(0)
        self.net = tiny()
        if place == "attribute":
            self.factor = factor
        self.scale = (lambda: self.factor) if place == "attribute" else (lambda: factor)
        if place == "tensor":
            self.table = torch.tensor(factor)
            self.scale = lambda: self.table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x) + self.scale() * torch.arange(4)
        return logits


@pytest.mark.parametrize("place", ["attribute", "closure", "tensor"])
def test_another_model_of_the_same_weights_is_refused(
    place: str, tiny_data: Images, tmp_path: Path
) -> None:
    ask: dict[str, Any] = {"data": tiny_data, "eps": "1/255", "checks": "none", "batch_size": 6}
    run = flatguard.evaluate(
        Scaled(1.0, place).eval(), "torchattacks:FGSM", **ask, out=tmp_path / "run", shard="1/2"
    )
    assert run.manifest.target.not_hashed == (("table",) if place == "tensor" else ())
    with pytest.raises(UsageError, match="answers otherwise now than when"):
        flatguard.resume(run, model=Scaled(1.1, place).eval(), data=tiny_data)
    other = flatguard.evaluate(
        Scaled(1.1, place).eval(), "torchattacks:FGSM", **ask, out=tmp_path / "other", shard="2/2"
    )
    with pytest.raises(UsageError, match="their models answer differently on the first images"):
        flatguard.merge([run, other], tmp_path / "merged")
    run = flatguard.resume(run, model=Scaled(1.0, place).eval(), data=tiny_data)
    assert run.complete
    with pytest.raises(UsageError, match="answers otherwise now than when"):
        flatguard.audit(run, checks="fast", model=Scaled(1.1, place).eval(), data=tiny_data)
