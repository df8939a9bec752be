"""Probes by several workers: the same evidence in any order, and limits as in one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import Hungry
from support.backwards import Backwards
from support.check_contexts import context_of, trained
from support.defences import Before, noise
from support.listeners import Listener
from torch import Tensor, nn

from flatguard.checks.context import CheckContext
from flatguard.checks.gathering import gather_evidence
from flatguard.execution.compute_budget import ComputeBudget, load_spent
from flatguard.execution.executors import Executor, InProcess
from flatguard.execution.progress import Silent
from flatguard.request import Limits
from flatguard.runs.check_evidence import load_probes, price_of_checks
from flatguard.runs.run import Run, load_run

Images = tuple[Tensor, Tensor]
WEAK = {"attack": "foolbox:LinfAdditiveUniformNoiseAttack", "eps": "32/255", "batch_size": 5}


@pytest.fixture(scope="module")
def data() -> Images:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(12) % 4


@pytest.fixture(scope="module")
def net(data: Images) -> nn.Module:
    return trained(*data)


PLAN = ["gradient-truth", "twins", "repeat", "switches-60", "noise", "targeted-110",
        "square-200", "rest-of-square-200", "longer-60", "rest-of-longer-60", "sweep",
        "scales"]  # fmt: skip


def probes_of(context: CheckContext) -> dict[str, bytes]:
    return probes_in(context.run)


def probes_in(run: Run) -> dict[str, bytes]:
    """Every file of the probes but their times."""
    folder = run.path / "evidence" / "probes"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.name not in ("timing.json", "probe.json")
    } | {name: facts.model_dump_json().encode() for name, facts in load_probes(run).items()}


def gathered(
    model: nn.Module,
    data: Images,
    executor: Executor,
    checks: Any = "standard",
    limits: Limits | None = None,
    **fields: Any,
) -> CheckContext:
    context = context_of(model, *data, **{**WEAK, **fields})
    budget = ComputeBudget(limits or Limits())
    gather_evidence(
        context.evaluation, context.run, checks, [], Silent(), budget, executor=executor
    )
    return context


@pytest.fixture(scope="module")
def here(net: nn.Module, data: Images) -> CheckContext:
    return gathered(net, data, InProcess())


@pytest.fixture(scope="module", params=[False, True], ids=["others", "starter-works-too"])
def backwards(request: pytest.FixtureRequest) -> Backwards:
    return Backwards(starter_works=request.param)


@pytest.fixture(scope="module")
def there(net: nn.Module, data: Images, backwards: Backwards) -> CheckContext:
    return gathered(net, data, backwards)


def test_any_order_gives_the_same_bytes(
    here: CheckContext, there: CheckContext, backwards: Backwards
) -> None:
    assert backwards.begun == 4
    assert (backwards.taken_back > 0) == backwards.starter_works
    assert probes_of(there) == probes_of(here)


def test_a_randomised_model_too(net: nn.Module, data: Images) -> None:
    few, model = (data[0][:4], data[1][:4]), Before(net, noise(0.3)).eval()
    found = [
        probes_of(gathered(model, few, executor, "fast", batch_size=2))
        for executor in (InProcess(), Backwards(starter_works=True))
    ]
    assert any(name.startswith("surest") for name in found[0])
    assert found[1] == found[0]


def test_evidence_is_stored_in_the_order_of_the_plan(there: CheckContext) -> None:
    """A run that is killed lacks the end of the plan, and no probe has read what came after it."""
    facts = there.run.path / "evidence" / "probes"
    stored = sorted(facts.glob("*/probe.json"), key=lambda file: file.stat().st_mtime_ns)
    assert [file.parent.name for file in stored] == [
        "preflight", "determinism", "recorded", *PLAN,
    ]  # fmt: skip


@pytest.mark.parametrize("kept", ["gradient-truth", "square-200", "targeted-110"])
def test_what_is_left_of_a_killed_run_is_the_same(
    kept: str, here: CheckContext, there: CheckContext, tmp_path: Path
) -> None:
    shutil.copytree(there.run.path, tmp_path / "run")
    killed = load_run(tmp_path / "run")
    for name in PLAN[PLAN.index(kept) + 1 :]:
        shutil.rmtree(killed.path / "evidence" / "probes" / name)
    gather_evidence(there.evaluation, killed, "standard", [], Silent(), executor=Backwards(room=2))
    assert probes_in(killed) == probes_of(here)


def test_less_memory_gives_the_same_evidence_too(net: nn.Module, data: Images) -> None:
    """What was gathered with more samples at once is gathered again, as one process would."""
    found = []
    for executor in (InProcess(), Backwards(), Backwards(starter_works=True)):
        model = Hungry("gradient", most=12).eval()
        model.net = net
        context = context_of(model, *data, **{**WEAK, "batch_size": 12})
        target: Any = context.evaluation.target.model
        target.most = 4
        listener = Listener()
        gather_evidence(context.evaluation, context.run, "fast", [], listener, executor=executor)
        assert any("does not fit the memory" in line for line in listener.lines)
        assert all(facts.ran for facts in load_probes(context.run).values())
        found.append(probes_of(context))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_budget_ends_at_the_same_probe(
    share: float, net: nn.Module, data: Images, here: CheckContext
) -> None:
    most = round(share * price_of_checks(here.run))
    limited = [
        gathered(net, data, executor, limits=Limits(max_forwards=most))
        for executor in (InProcess(), Backwards(), Backwards(starter_works=True))
    ]
    ran = [
        {name for name, facts in load_probes(context.run).items() if facts.ran}
        for context in limited
    ]
    assert ran[0] == ran[1] == ran[2]
    assert "scales" not in ran[0]
    for context in limited[1:]:
        assert load_spent(context.run) <= most + len(data[0])


def test_a_model_that_remembers_and_cannot_be_copied_is_checked_here(data: Images) -> None:
    class Counts(nn.Module):
        """Its answers depend on how often it was called; a copy of it is refused."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = trained(*data), 0

        def __deepcopy__(self, memo: dict[int, Any]) -> Counts:
            raise TypeError("no copies")

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            logits: Tensor = self.net(x) * (1.0 + 0.2 * (self.calls % 3))
            return logits

    backwards, listener = Backwards(), Listener()
    context = context_of(Counts().eval(), *data, **WEAK)
    gather_evidence(context.evaluation, context.run, "fast", [], listener, executor=backwards)
    assert backwards.begun == 0
    assert any("run in one process: the model's answers depend" in line for line in listener.lines)
