"""An image's answer that depends on the other images: what counts is the clean batch."""

import pytest
import torch
from support.check_contexts import context_of, trained
from torch import Tensor, nn

from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import ALONE, Evidence
from flatguard.checks.gathering import gather_evidence
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
