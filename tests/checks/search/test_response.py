"""What small random steps do, against what a gradient predicts."""

from collections.abc import Callable

import pytest
import torch
from support.check_contexts import context_of, linear, trained
from support.defences import Before
from torch import Tensor

from flatguard.checks.context import CheckContext
from flatguard.checks.gradient_evidence import WHOLE, median_agreement
from flatguard.checks.search.candidates import plain_candidates, repaired_only
from flatguard.checks.search.response import responses
from flatguard.geometry.budget import Norm
from flatguard.twins.repairs import double

IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4
WEAK = "foolbox:LinfAdditiveUniformNoiseAttack"


def agreement(context: CheckContext) -> dict[str, float]:
    rows = next(context.rows(context.clean_correct))
    wide = double(context.model, rows.images[:1])
    found = [plain_candidates(context)[0], *repaired_only(context, rows)]
    beside = (rows.images + 1e-3).clamp(0, 1)
    return median_agreement(responses(context, rows, beside, wide, found))


def behind(change: Callable[[Tensor], Tensor]) -> dict[str, float]:
    model = Before(trained(IMAGES, LABELS), change).eval()
    return agreement(context_of(model, IMAGES, LABELS, WEAK, eps="8/255"))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_model_does_exactly_what_its_gradient_predicts(norm: Norm) -> None:
    context, _ = linear(norm)
    assert agreement(context)["raw"] > 0.999999


def test_a_smooth_network_is_whole() -> None:
    assert behind(lambda x: x)["raw"] > 0.97


def half_detached(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, :4].detach(), x[:, :, 4:]], dim=2)


def half_rounded(x: Tensor) -> Tensor:
    return torch.cat([(x[:, :, :4] * 31).round() / 31, x[:, :, 4:]], dim=2)


def test_a_part_without_gradient_is_seen_and_the_repair_explains_it() -> None:
    found = behind(half_detached)
    assert found["raw"] < WHOLE
    assert found["cutting"] > 0.97


def test_a_rounded_part_is_seen() -> None:
    assert behind(half_rounded)["raw"] < WHOLE


def test_a_model_that_does_not_answer_to_steps_is_not_measured() -> None:
    found = behind(lambda x: x * 0)
    assert found == {}
