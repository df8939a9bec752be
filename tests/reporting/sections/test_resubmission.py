"""The section on resubmission, of a target that draws noise and of one that does not."""

import torch
from support.check_contexts import context_of, trained
from torch import Tensor, nn

from flatguard.checks.gathering import gather_evidence
from flatguard.checks.resubmission import resubmissions
from flatguard.execution.progress import Silent
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.resubmission import RESUBMISSION
from flatguard.reporting.sections.section import NotMeasured, SectionContent
from flatguard.runs.run import Run


class Noisy(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + 2.0 * torch.randn_like(logits)


def test_a_target_without_fresh_draws_has_no_section(run: Run) -> None:
    assert isinstance(RESUBMISSION.build(JudgedRun.load(run)), NotMeasured)


def test_the_chart_shows_each_number_of_tries() -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 4
    how = {"eps": "1/255", "attack_args": {"alpha": 1 / 255, "steps": 1}}
    model = Noisy(trained(images, labels)).eval()
    context = context_of(model, images, labels, "torchattacks:PGD", **how)
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    judged = JudgedRun.load(context.run)
    content = RESUBMISSION.build(judged)
    assert isinstance(content, SectionContent)
    found = resubmissions(judged.evidence)
    assert content.data["resubmission"] == [one.model_dump() for one in found]
    assert found[0].accuracy >= found[1].accuracy >= found[2].accuracy
    assert all(f"shown {one.tries}×" in content.figures[0].image for one in found)
    assert f"{found[0].accuracy:.1%} are right where each best example" in content.intro
