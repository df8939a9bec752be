"""Images on disk: exact, and of one shape and type."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flatguard.errors import RunFolderError
from flatguard.runs.images import as_bytes, as_floats
from flatguard.runs.run import Run, load_run


def test_the_clean_images_are_kept_bit_for_bit(
    attacked: Run, tiny_data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    assert torch.equal(torch.cat([attacked.clean(index) for index in range(3)]), tiny_data[0])
    eight_bit = torch.arange(256).to(torch.uint8).reshape(1, 1, 16, 16)
    assert as_bytes(eight_bit.float() / 255.0).dtype == torch.uint8
    assert torch.equal(as_floats(eight_bit), eight_bit.float() / 255.0)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 9, 4), torch.zeros(5), torch.zeros(2, 3, 4, 4).bfloat16()]
)
def test_images_of_something_else(block: Path, images: torch.Tensor) -> None:
    save_file({"adversarial": images}, block / "adversarial.safetensors")
    with pytest.raises(RunFolderError, match=r"adversarial\.safetensors is damaged"):
        load_run("run").adversarial_sha256()
