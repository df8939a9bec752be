"""Randomised targets, in evidence and for real."""

import pytest
import torch
from support.check_contexts import context_of, trained
from support.evidence import determinism, judged_by
from torch import Tensor, nn

from flatguard.checks.determinism import CHECK
from flatguard.checks.evidence import Evidence
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.search.attempts import best_examples
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import load_probes

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_determinism() -> None:
    assert status(judged_by()) == "pass"
    random = judged_by(repeated=determinism(100, randomised=True))
    assert status(random) == "warn"
    lucky = judged_by(repeated=determinism(100, randomised=True, wrong=range(10)))
    assert status(lucky) == "fail"
    broken = determinism(4)
    broken.tables["repeated"]["difference"] = float("nan")
    assert status(judged_by(repeated=broken)) == "warn"


class Noisy(nn.Module):
    """Logits with noise."""

    def __init__(self, net: nn.Module, scale: float):
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + self.scale * torch.randn_like(logits)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_corrected_number_is_the_majority_of_many_draws_over_what_was_found(seed: int) -> None:
    """Neither too low, by one of a dozen lucky votes, nor too high."""
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    model = Noisy(trained(images, labels), 2.0).eval()
    how = {"eps": "16/255", "attack_args": {"alpha": 4 / 255, "steps": 5}, "seed": seed}
    context = context_of(model, images, labels, "torchattacks:PGD", **how)
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    found = Evidence.of(context.run)
    context.randomised = True
    best = best_examples(context)
    shown = torch.stack([best[n] for n in range(40)])
    with torch.no_grad():
        draws = [model(shown).argmax(1) != labels for _ in range(4000)]
    wrong = torch.stack(draws).double().mean(dim=0)
    assert abs(found.corrected - int((wrong <= 0.5).sum())) <= 3
    near = ((wrong - 0.5).abs() > 0.15).nonzero()[:, 0].tolist()
    right = found.standing - found.fooled
    assert {n for n in near if wrong[n] <= 0.5} == right & set(near)
    again = CHECK.judge(found, TOLERANCE).data["resubmission"]
    assert [one["tries"] for one in again] == [1, 10, 100]
    for one in again:
        expected = float(((1 - wrong) ** one["tries"]).mean())
        assert one["accuracy"] == pytest.approx(expected, abs=0.05)
        assert one["interval"][0] <= expected <= one["interval"][1]


def test_fresh_draws_are_taken_again_at_a_higher_level() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(2)
    model = Noisy(trained(images, labels), 1.0).eval()
    weak = "foolbox:LinfAdditiveUniformNoiseAttack"
    context = context_of(model, images, labels, weak, eps="8/255")
    for level in ("fast", "standard"):
        gather_evidence(context.evaluation, context.run, level, [], Silent())
    names = [name for name in load_probes(context.run) if name.startswith("confirmed")]
    assert names == ["confirmed-101", "confirmed-151"]


class Shared(Noisy):
    """One draw for a whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + self.scale * torch.randn(1, 4)


@pytest.mark.parametrize(("kind", "shared"), [(Shared, True), (Noisy, False)])
def test_where_a_batch_shares_its_draw_images_are_confirmed_one_at_a_time(
    kind: type[Noisy], shared: bool
) -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 4
    model = kind(trained(images, labels), 2.0).eval()
    how = {"eps": "1/255", "attack_args": {"alpha": 1 / 255, "steps": 1}}
    context = context_of(model, images, labels, "torchattacks:PGD", **how)
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    facts = load_probes(context.run)["determinism"].facts
    assert facts["shares_draws"] is shared
