"""What the attack passed through counts, or the model is asked why not."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest
import torch
from support.check_contexts import context_of, trained
from support.evidence import attempts, determinism, judged_by
from torch import Tensor, nn

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.recorded_mistakes import CHECK, mistakes_along_the_path
from flatguard.checks.state_evidence import taken_back
from flatguard.checks.verdict import judge
from flatguard.execution.progress import Silent

TOLERANCE = 0.05
IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


def shown(held: int, moved: float, count: int, **others: ProbeEvidence) -> Evidence:
    """So many survivors were shown again: the first are wrong, the others' margins have moved."""
    base = judged_by({}, **others)
    table = pd.DataFrame({"sample": range(count), "moved": moved, "held": False})
    table.loc[: held - 1, "held"] = True
    probe = attempts(100, range(count), {"recorded": range(held)})
    probe.tables["recorded"] = table
    (path,) = base.trajectory
    path.loc[(path["sample"] < count) & (path["call"] == 1), "margin"] = -1.0
    return replace(base, probes={**base.probes, "recorded": probe})


@pytest.mark.parametrize(
    ("held", "moved", "count", "status", "verdict"),
    [
        (0, 0.0, 0, "pass", "consistent"),
        (3, 0.0, 3, "warn", "consistent"),
        (20, 0.0, 20, "fail", "overestimated"),
        (0, 1e-4, 1, "pass", "consistent"),  # rounding of another batch
        (0, 0.5, 1, "fail", "inconclusive"),  # the model takes it back
    ],
)
def test_what_is_found(held: int, moved: float, count: int, status: str, verdict: str) -> None:
    found = shown(held, moved, count)
    assert CHECK.judge(found, TOLERANCE).status == status
    assert judge(found).verdict == verdict
    assert found.corrected == 60 - held


def test_a_randomised_target_takes_nothing_back() -> None:
    found = shown(0, 0.5, 5, repeated=determinism(100, randomised=True))
    assert taken_back(found) == set()


def test_a_mistake_that_was_not_shown_again_has_not_passed() -> None:
    found = shown(0, 0.0, 2)
    probes = {name: probe for name, probe in found.probes.items() if name != "recorded"}
    unshown = replace(found, probes=probes)
    assert mistakes_along_the_path(unshown) == {0, 1}
    assert CHECK.judge(unshown, TOLERANCE).status == "not-run"
    assert judge(unshown).verdict == "inconclusive"


STRONG: dict[str, Any] = {"eps": "48/255", "attack_args": {"alpha": 12 / 255, "steps": 20}}


@dataclass
class Asked:
    """An image that was asked about, the first answer, and how often a similar one came."""

    image: Tensor
    answer: Tensor
    times: int = 1


class Locking(nn.Module):
    """After a few similar questions it gives its first answer again."""

    def __init__(self, net: nn.Module, after: int):
        super().__init__()
        self.net, self.after = net, after
        self.asked: list[Asked] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.stack([self.answer(*pair) for pair in zip(x.detach(), logits, strict=True)])

    def answer(self, image: Tensor, logits: Tensor) -> Tensor:
        for known in self.asked:
            if (known.image - image).abs().max() < 0.3:
                known.times += 1
                return logits if known.times <= self.after else known.answer + 0 * logits
        self.asked.append(Asked(image, logits.detach()))
        return logits


@pytest.mark.parametrize("after", [2, 4])
def test_a_model_that_locks_its_answers_is_masked_by_its_state(after: int) -> None:
    model = Locking(trained(IMAGES, LABELS), after).eval()
    context = context_of(model, IMAGES, LABELS, "torchattacks:PGD", **STRONG)
    assert len(context.survivors) == 8
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    verdict = judge(Evidence.of(context.run))
    assert (verdict.verdict, verdict.mechanism) == ("masked", "state")
    assert verdict.corrected_robust_accuracy == 0.0
    (finding,) = (f for f in verdict.findings if f.check == "earlier-calls")
    assert "of 8 examples that fool them" in finding.summary


def test_the_recorded_example_itself_is_stored_and_fools() -> None:
    context = context_of(
        Locking(trained(IMAGES, LABELS), 12).eval(), IMAGES, LABELS, "torchattacks:PGD", **STRONG
    )
    kept = context.run.mistakes(0)
    assert kept is not None
    assert len(kept.sample) > 0
    net = trained(IMAGES, LABELS)
    assert bool((net(kept.images).argmax(1) != LABELS[kept.sample]).all())
    assert bool(((kept.images - IMAGES[kept.sample]).abs() <= 48 / 255 + 1e-6).all())
