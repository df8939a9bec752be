"""The check `batch-dependence`: beside other images, in a smaller batch, alone; what counts."""

import pytest
import torch
from support.check_contexts import context_of, trained
from support.preflight import OTHER, SAME, judged, judged_without
from torch import Tensor, nn

from flatguard.checks.batch_dependence import CHECK
from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import ALONE, Evidence
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.preflight.facts import Difference
from flatguard.checks.verdict import judge
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import load_fooled, load_probes

IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


class Herd(nn.Module):
    """The mean logits of the batch are added to everyone's, as many times as `weight` says."""

    def __init__(self, net: nn.Module, weight: float):
        super().__init__()
        self.net, self.weight = net, weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + self.weight * logits.mean(dim=0, keepdim=True)


def herd(weight: float) -> nn.Module:
    return Herd(trained(IMAGES, LABELS), weight).eval()


def gathered(weight: float, eps: str, alpha: float) -> CheckContext:
    how = {"eps": eps, "attack_args": {"alpha": alpha, "steps": 10}}
    context = context_of(herd(weight), IMAGES, LABELS, "torchattacks:PGD", **how)
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    return context


def is_wrong_alone(model: nn.Module, number: int, image: Tensor) -> bool:
    batch = IMAGES.clone()
    batch[number] = image
    with torch.no_grad():
        return int(model(batch)[number].argmax()) != int(LABELS[number])


@pytest.mark.parametrize(("eps", "alpha"), [("48/255", 12 / 255), ("96/255", 24 / 255)])
def test_examples_count_where_they_are_wrong_alone_in_the_clean_batch(
    eps: str, alpha: float
) -> None:
    context, model = gathered(3.0, eps, alpha), herd(3.0)
    run, found = context.run, Evidence.of(context.run)
    adversarial = run.adversarial(0)
    right = [n for n in range(8) if run.samples["clean_correct"][n]]
    assert right
    holds = {n for n in right if is_wrong_alone(model, n, adversarial[n])}
    assert found.given_back == set(right) - holds - found.reported
    assert found.mostly_wrong == holds & found.reported
    kept = {n: image for name in load_probes(run) for n, image in load_fooled(run, name).items()}
    assert found.fooled - found.mostly_wrong <= set(kept)
    assert all(is_wrong_alone(model, n, image) for n, image in kept.items())
    finding = next(f for f in judge(found).findings if f.check == "batch-dependence")
    assert finding.status == "warn"
    assert f"{len(found.given_back)} are right again there" in finding.summary


def test_what_is_left_is_searched_alone() -> None:
    found = Evidence.of(gathered(3.0, "48/255", 12 / 255).run)
    alone = found.attempts[found.attempts["family"] == ALONE]
    others = found.attempts[found.attempts["family"] != ALONE]
    known = set(others.loc[others["fooled"], "sample"]) | found.mostly_wrong
    assert set(alone["sample"]) == found.standing - known


def test_a_model_that_answers_image_by_image_has_no_such_probe() -> None:
    assert ALONE not in Evidence.of(gathered(0.0, "8/255", 2 / 255).run).probes


@pytest.mark.parametrize(
    ("part", "text"),
    [("other_neighbours", "beside other images"), ("smaller_batch", "in a smaller batch")],
)
def test_each_comparison_is_a_warning_of_its_own(part: str, text: str) -> None:
    found = judged(CHECK, **{part: OTHER})
    assert (found.status, found.samples) == ("warn", 16)
    assert f"up to 0.25 of their size {text}, and 3 of 16 decisions change" in found.summary
    assert "model.eval()" in (found.next or "")


def test_a_single_image_that_fails_is_named() -> None:
    found = judged(CHECK, single_image="gives (10,) for (1, 10)")
    assert found.status == "warn"
    assert "a batch of a single image fails: the model gives (10,) for (1, 10)" in found.summary


def test_batch_normalisation_is_named_as_the_cause() -> None:
    found = judged(CHECK, other_neighbours=OTHER, trained_parts=("batch normalisation",))
    assert "batch normalisation is in training mode" in found.summary


def test_rounding_is_no_dependence_and_what_is_not_finite_is() -> None:
    small = Difference(largest=9e-4, flips=0, images=16)
    assert judged(CHECK, smaller_batch=small).status == "pass"
    assert judged(CHECK, smaller_batch=small.model_copy(update={"largest": None})).status == "warn"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"repeated": OTHER, "own_generator": True}, "a generator of its own"),
        ({"repeated": OTHER}, "depend on earlier calls"),
        ({}, "too few different images"),
    ],
)
def test_not_compared_is_not_passed(changes: dict[str, object], why: str) -> None:
    found = judged(CHECK, other_neighbours=None, smaller_batch=None, **changes)
    assert found.status == "not-run"
    assert why in found.summary
    assert found.next


@pytest.mark.parametrize(("apart", "status"), [(False, "pass"), (True, "warn")])
def test_draws_of_a_random_model_are_compared(apart: bool, status: str) -> None:
    random = {"repeated": OTHER, "own_generator": True, "batch_draws_apart": apart}
    found = judged(CHECK, other_neighbours=None, smaller_batch=None, **random)
    assert found.status == status


def test_what_was_compared_is_said() -> None:
    assert "beside other images and in a smaller batch" in judged(CHECK).summary
    random = judged(CHECK, other_seed=OTHER, other_neighbours=SAME, smaller_batch=None)
    assert random.status == "pass"
    assert (
        "beside other images; a smaller batch was not compared, because its random"
        in random.summary
    )


def test_where_the_model_raised_it_did_not_run() -> None:
    found = judged(CHECK, failed={"behaviour": "RuntimeError: no"})
    assert (found.status, "RuntimeError: no" in found.summary) == ("not-run", True)
    assert judged_without(CHECK).status == "not-run"
