"""The difference between a model in another precision and its float32 copy."""

import copy
from dataclasses import replace

import pytest
import torch
from support.broken import Around, SetUp
from support.preflight import judged, loaded
from torch import Tensor, nn

from flatguard.checks.output_kind import CHECK
from flatguard.checks.preflight.facts import Difference, Output, Precision, stored
from flatguard.checks.preflight.gather import measure

BF16 = torch.bfloat16


class Autocast(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", BF16):
            logits: Tensor = self.net(x)
        return logits


class Converting(Around):
    """Converts its images itself, so that a float32 copy fails."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x.to(BF16))
        return logits


@pytest.mark.parametrize("dtype", [BF16, torch.float64])
def test_the_difference_is_that_of_the_two_models(good: SetUp, dtype: torch.dtype) -> None:
    narrow = copy.deepcopy(good.model).to(dtype)
    data = loaded(replace(good, model=narrow), n_examples=40)
    found = measure(data).precision
    assert found is not None
    assert found.name == str(dtype).removeprefix("torch.")
    images = data.dataset.block(0, 40).images
    with torch.no_grad():
        own, wide = narrow(images.to(dtype)).float(), copy.deepcopy(narrow).float()(images)
    assert found.largest == pytest.approx(float((own - wide).abs().max()), rel=0.5, abs=1e-5)
    assert found.difference is not None
    flips = int((own.argmax(1) != wide.argmax(1)).sum())
    assert (found.difference.images, found.difference.flips) == (40, flips)
    assert next(narrow.parameters()).dtype == dtype


def test_where_it_cannot_be_measured_the_reason_is_given(good: SetUp) -> None:
    converting = Converting(copy.deepcopy(good.model).to(BF16))
    found = measure(loaded(replace(good, model=converting), n_examples=20)).precision
    assert found is not None
    assert found.difference is None
    assert "RuntimeError" in (found.unmeasured or "")
    cast = measure(loaded(replace(good, model=Autocast(good.model)), n_examples=20)).precision
    assert cast is not None
    assert "converts to bfloat16 itself" in (cast.unmeasured or "")


def test_a_float32_model_stores_what_it_stored_before(good: SetUp) -> None:
    found = measure(loaded(good, n_examples=20))
    assert found.precision is None
    assert "precision" not in stored(found)


def test_the_output_check_reports_it() -> None:
    output = Output(kind="logits", lowest=-1, highest=1)
    part = Difference(largest=0.01, flips=3, images=100)
    measured = Precision(name="bfloat16", largest=0.25, difference=part)
    assert judged(CHECK, output=output, precision=measured).summary.endswith(
        "computed in bfloat16: a float32 copy decides alike on 97 of 100 images, and logits "
        "differ by up to 0.25"
    )
    unmeasured = Precision(name="float16", unmeasured="no copy")
    summary = judged(CHECK, output=output, precision=unmeasured).summary
    assert summary.endswith("the difference to float32 is unmeasured: no copy")
