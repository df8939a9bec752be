"""Programs of a fixed batch size: they are called with such batches, and a note says so."""

from pathlib import Path

import pytest
import torch
from torch import nn

import flatguard
from flatguard.errors import ModelError
from flatguard.targets import prepare
from flatguard.targets.checkpoint import load
from flatguard.targets.programs import Program, batch_notes

IMAGES = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Fixed(nn.Module):
    """Written for one size of batch."""

    def __init__(self, size: int):
        super().__init__()
        torch.manual_seed(1)
        self.head, self.size = nn.Linear(48, 3), size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.reshape(self.size, 48))
        return logits


def plain(images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = Fixed(0).head(images.flatten(1))
    return logits


@pytest.mark.parametrize("size", [1, 4, 8, 32])
@pytest.mark.parametrize("kind", ["script", "export"])
def test_a_program_of_one_batch_size(size: int, kind: str, tmp_path: Path) -> None:
    example = torch.rand(size, 3, 4, 4)
    file = tmp_path / "p.pt"
    if kind == "script":
        torch.jit.trace(Fixed(size).eval(), example).save(str(file))
    else:
        torch.export.save(torch.export.export(Fixed(size).eval(), (example,)), file)
    target = prepare(load(file, allow_code=True), IMAGES)
    for count in (1, 5, 8):
        assert torch.allclose(target.model(IMAGES[:count]), plain(IMAGES[:count]), atol=1e-6)
    if not (kind == "script" and size == 8):  # the first look shows nothing
        assert f"batches of {size} only: larger ones are cut" in target.notes[-1]


def test_the_note_is_in_the_manifest(tmp_path: Path) -> None:
    torch.jit.trace(Fixed(4).eval(), IMAGES[:4]).save(str(tmp_path / "p.pt"))
    run = flatguard.evaluate(
        str(tmp_path / "p.pt"), "torchattacks:FGSM", data=(IMAGES, plain(IMAGES).argmax(1)),
        eps="1/255", norm="Linf", checks="none", allow_code=True, out=tmp_path / "run",
    )  # fmt: skip
    assert run.summary["clean_accuracy"] == 1.0
    assert any("batches of 4 only" in note for note in run.manifest.target.notes)


def test_a_script_that_fails_for_another_reason_is_one_line(tmp_path: Path) -> None:
    torch.jit.trace(lambda x: x.reshape(4, 7), torch.ones(4, 7)).save(str(tmp_path / "p.pt"))
    with pytest.raises(ModelError, match=r"RuntimeError: shape '\[4, 7\]' is invalid") as caught:
        prepare(load(tmp_path / "p.pt", allow_code=True), IMAGES)
    assert "Traceback" not in str(caught.value)


def test_too_few_rows_are_named(tmp_path: Path) -> None:
    torch.jit.trace(lambda x: x.flatten(1)[:4], IMAGES).save(str(tmp_path / "p.pt"))
    with pytest.raises(ModelError, match=r"\(n, classes\) for 8 images .* got \(4, 48\)"):
        prepare(load(tmp_path / "p.pt", allow_code=True), IMAGES)


def test_programs_of_any_size_have_no_note() -> None:
    assert batch_notes(nn.Linear(2, 2)) == ()
    assert batch_notes(Program(torch.jit.trace(nn.Flatten(), IMAGES))) == ()


class Pair(Fixed):
    """Returns two tensors."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        logits = super().forward(images)
        return logits, 2 * logits


@pytest.mark.parametrize("size", [3, 8, 32])
def test_several_outputs_in_batches_of_one_size(size: int, tmp_path: Path) -> None:
    file = tmp_path / "p.pt2"
    torch.export.save(torch.export.export(Pair(size), (torch.rand(size, 3, 4, 4),)), file)
    target = prepare(load(file, allow_code=True), IMAGES)
    assert torch.allclose(target.model(IMAGES), plain(IMAGES))
    assert "the first of 2 outputs" in " ".join(target.notes)
