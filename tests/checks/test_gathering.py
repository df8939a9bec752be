"""Probes on real runs: what they store, that nothing is run twice, and what cannot run."""

import shutil
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from support.architectures import Hungry
from support.check_contexts import context_of, trained
from support.defences import After, Before, Negated, OffGrid, bits, noise
from support.listeners import Listener
from torch import Tensor, nn

import flatguard
from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import Evidence
from flatguard.checks.gathering import estimate, gather_evidence
from flatguard.checks.gradient_evidence import gradient_evidence
from flatguard.errors import RunFolderError
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import load_fooled, load_probes, load_tables
from flatguard.runs.json_files import write_sealed
from flatguard.runs.layout import committed
from flatguard.targets import make_target

Images = tuple[Tensor, Tensor]
WEAK = "foolbox:LinfAdditiveUniformNoiseAttack"


@pytest.fixture(scope="module")
def data() -> Images:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(12) % 4


@pytest.fixture(scope="module")
def net(data: Images) -> nn.Module:
    return trained(*data)


def probed(model: nn.Module, data: Images, checks: Any = "fast", **fields: Any) -> CheckContext:
    context = context_of(
        model, *data, **{"attack": WEAK, "eps": "32/255", "batch_size": 5, **fields}
    )
    gather_evidence(context.evaluation, context.run, checks, [], Silent())
    return context


def test_evidence_is_kept_and_nothing_runs_twice(net: nn.Module, data: Images) -> None:
    context = probed(net, data)
    kept = load_probes(context.run)
    assert set(kept) == {
        "preflight", "determinism", "recorded", "gradient-truth", "twins", "switches-20", "repeat",
        "noise", "targeted-5",
    }  # fmt: skip
    stamps = {f: f.stat().st_mtime_ns for f in (context.run.path / "evidence").rglob("*.json")}
    gather_evidence(context.evaluation, context.run, "standard", [], Silent())
    assert set(load_probes(context.run)) - set(kept) == {
        "square-200",
        "rest-of-square-200",
        "longer-60",
        "rest-of-longer-60",
        "targeted-110",
        "sweep",
        "scales",
        "switches-60",
    }
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())


def test_every_survivor_is_tried_by_every_twin(net: nn.Module, data: Images) -> None:
    context = probed(net, data)
    table = load_tables(context.run, load_probes(context.run)["twins"])["attempts"]
    tried = table.groupby("attempt")["sample"].apply(lambda numbers: sorted(numbers))
    assert {"control", "temperature", "margin", "float64"} <= set(tried.index)
    assert all(numbers == sorted(context.survivors) for numbers in tried)


def test_fooling_examples_fool_the_target(net: nn.Module, data: Images) -> None:
    context = probed(net, data)
    fooled = load_fooled(context.run, "twins")
    evidence = Evidence.of(context.run)
    assert set(fooled) == evidence.fooled_by(
        "control", "temperature", "loss", "float64", "smoothed", "estimated", "repair"
    )
    assert fooled
    for number, image in fooled.items():
        clean, label = data[0][number], data[1][number]
        assert net(image[None]).argmax() != label
        assert (image - clean).abs().max() <= 32 / 255 + 1e-6
        assert 0 <= image.min() <= image.max() <= 1


def test_the_price_is_what_the_model_was_called_on(net: nn.Module, data: Images) -> None:
    """Counted by a hook of the test's own, on a model that no twin copies."""
    seen = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(inputs[0])

    model = Before(net, lambda x: x.float())  # float32 only: there is no float64 twin
    context = context_of(model, *data, attack=WEAK, eps="32/255")
    handle = context.evaluation.target.model.register_forward_pre_hook(count)
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    handle.remove()
    told = sum(facts.sample_forwards for facts in load_probes(context.run).values())
    assert seen > 0
    assert told >= 0.8 * seen  # repairs look at a few images to find themselves
    announced = estimate(context, "fast").forwards
    assert told <= 1.5 * announced


@pytest.mark.parametrize(
    ("defend", "unavailable", "vanished"),
    [
        (lambda net: net, 0.0, 0.0),
        (lambda net: Before(net, bits(2)), 1.0, 1.0),
        (lambda net: Before(net, Negated.apply), 1.0, 0.0),
        (lambda net: After(net, lambda z: 1e4 * z), 0.0, 1.0),
    ],
)
def test_gradient_truth(
    defend: Any, unavailable: float, vanished: float, data: Images, net: Any
) -> None:
    model = defend(net).eval()
    context = context_of(model, *data, attack=WEAK, eps="8/255")
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    truth = gradient_evidence(Evidence.of(context.run))
    assert truth is not None
    assert truth.unavailable == pytest.approx(unavailable, abs=0.1)
    assert truth.vanished == pytest.approx(vanished, abs=0.1)


def test_a_randomised_target_is_found_and_averaged(net: nn.Module, data: Images) -> None:
    images, labels = data
    context = probed(Before(net, noise(0.3)), (images[:4], labels[:4]))
    assert load_probes(context.run)["determinism"].facts["randomised"]
    assert Evidence.of(context.run).tried("eot")


def test_what_cannot_be_searched_is_not_run(net: nn.Module, data: Images) -> None:
    context = probed(net, data, attack="torchattacks:OnePixel", eps="5")
    facts = load_probes(context.run)
    assert not facts["twins"].ran
    assert "not L0" in facts["twins"].facts["reason"]
    assert facts["determinism"].ran
    assert flatguard.audit(context.run).verdict in ("inconclusive", "vulnerable", "masked")


def test_a_model_that_fails_under_a_probe_leaves_the_others(net: nn.Module, data: Images) -> None:
    class NoGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                raise NotImplementedError("forward only")
            logits: Tensor = self.net(x)
            return logits

    context = probed(NoGradient(), data, checks="standard")
    facts = load_probes(context.run)
    assert not facts["twins"].ran
    assert "forward only" in facts["twins"].facts["reason"]
    assert facts["square-200"].ran
    verdict = flatguard.audit(context.run)
    assert verdict.verdict in ("inconclusive", "overestimated", "masked")


def test_what_failed_once_is_run_again(net: nn.Module, data: Images) -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.fails = net, False

        def forward(self, x: Tensor) -> Tensor:
            assert not self.fails, "not today"
            logits: Tensor = self.net(x)
            return logits

    model = Moody()
    context = context_of(model, *data, attack=WEAK, eps="32/255")
    target = context.evaluation.target.model
    assert isinstance(target, Moody)
    target.fails = True
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    assert "not today" in load_probes(context.run)["twins"].facts["reason"]
    assert flatguard.audit(context.run).verdict == "inconclusive"
    target.fails = False
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    assert all(facts.ran for facts in load_probes(context.run).values())


def test_probes_of_another_run_are_refused(net: nn.Module, data: Images) -> None:
    one, other = probed(net, data), probed(net, data, seed=1)
    shutil.rmtree(other.run.path / "evidence" / "probes")
    shutil.copytree(one.run.path / "evidence" / "probes", other.run.path / "evidence" / "probes")
    with pytest.raises(RunFolderError, match="belongs to another run"):
        flatguard.audit(other.run.path)


@pytest.mark.parametrize("name", ["../../../elsewhere.parquet", "/etc/passwd"])
def test_evidence_names_no_file_elsewhere(name: str, net: nn.Module, data: Images) -> None:
    context = probed(net, data)
    file = context.run.path / "evidence" / "probes" / "twins" / "probe.json"
    facts = load_probes(context.run)["twins"]
    write_sealed(file, facts.model_copy(update={"files": {**facts.files, name: "0" * 64}}))
    with pytest.raises(RunFolderError, match=r"is damaged: files\."):
        flatguard.audit(context.run.path)


def test_the_audited_number_cannot_be_changed(net: nn.Module, data: Images) -> None:
    context = probed(net, data)
    file = committed(context.run.path)[0] / "samples.parquet"
    table = pd.read_parquet(file)
    table["robust"] = False
    table.to_parquet(file)
    with pytest.raises(RunFolderError, match="is damaged"):
        flatguard.audit(context.run.path)


def test_a_vote_through_numpy_is_never_believed(net: nn.Module, data: Images) -> None:
    """Its last layer is no nn.Linear, so no head can be repaired; a decoy gives true gradients."""

    class Decoy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, last = net[:3], net[3]  # type: ignore[index]
            self.weight = nn.Parameter(last.weight.detach().clone())
            self.bias = nn.Parameter(last.bias.detach().clone())

        def forward(self, x: Tensor) -> Tensor:
            logits = nn.functional.linear(self.body(x), self.weight, self.bias)
            winner = torch.from_numpy(logits.detach().numpy().argmax(1))
            vote = nn.functional.one_hot(winner, 4).float()
            return vote + 0.3 * torch.tanh(x.flatten(1)[:, :4])

    context = probed(Decoy().eval(), data, checks="standard", eps="4/255")
    assert flatguard.audit(context.run).verdict in ("inconclusive", "masked", "overestimated")


def test_generators_are_put_back(net: nn.Module, data: Images) -> None:
    context = context_of(net, *data, attack=WEAK, eps="8/255")
    before = torch.get_rng_state()
    gather_evidence(context.evaluation, context.run, "fast", [], Silent())
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_seed_gives_the_same_evidence(net: nn.Module, data: Images) -> None:
    tables = []
    for _ in range(2):
        context = probed(net, data)
        tables.append(load_tables(context.run, load_probes(context.run)["twins"])["attempts"])
    assert tables[0].equals(tables[1])


def test_another_tolerance_needs_no_model(net: nn.Module, data: Images) -> None:
    context = probed(net, data)
    strict, loose = (flatguard.audit(context.run.path, tolerance=t) for t in (0.0, 0.99))
    assert strict.overestimate == loose.overestimate
    assert loose.verdict not in ("masked", "overestimated")
    assert replace(Evidence.of(context.run), complete=False).n == 12


def test_checks_that_do_not_fit_the_memory_run_on_fewer_samples_at_once(
    net: nn.Module, data: Images
) -> None:
    """The allocator's own error; a memory that is too small for one sample is the reason."""
    model, listener = Hungry("gradient", most=12).eval(), Listener()
    model.net = net
    context = context_of(model, *data, attack=WEAK, eps="32/255", batch_size=12)
    model.most = 2
    gather_evidence(
        context.evaluation,
        context.run,
        "standard",
        [make_target(net, "itself", "a test")],
        listener,
    )
    kept = load_probes(context.run)
    assert all(facts.ran for facts in kept.values()), kept
    assert any("does not fit the memory; it begins again" in line for line in listener.lines)
    found = load_tables(context.run, kept["twins"])["attempts"]
    assert all(
        sorted(n) == sorted(context.survivors) for _, n in found.groupby("attempt")["sample"]
    )
    other = context_of(model, *data, attack=WEAK, eps="32/255", batch_size=12)
    model.most = 0
    gather_evidence(other.evaluation, other.run, "fast", [], Silent())
    assert "allocate" in load_probes(other.run)["twins"].facts["reason"]


@pytest.mark.parametrize("checks", ["standard", "full"])
def test_no_check_calls_the_model_on_no_images(checks: str, net: nn.Module, data: Images) -> None:
    """Every sample falls to the first image that noise, Square and searches make of it."""
    images = (data[0] * 255).round() / 255
    labels = net(images).argmax(dim=1)
    still = {"attack": "torchattacks:PGD", "attack_args": {"alpha": 0.0, "random_start": False}}
    context = context_of(OffGrid(net).eval(), images, labels, **still, eps=0.03, batch_size=5)
    assert len(context.survivors) == len(images)
    gather_evidence(
        context.evaluation, context.run, checks, [make_target(net, "itself", "a test")], Silent()
    )
    kept = load_probes(context.run)
    assert all(facts.ran for facts in kept.values()), {n: f.facts for n, f in kept.items()}
    for name, facts in kept.items():
        if name == "noise" or name.startswith("square"):
            fell = load_tables(context.run, facts)["attempts"]["fooled"]
            assert fell.all()
            assert len(load_fooled(context.run, name)) == len(images)
    assert kept["noise"].sample_forwards == len(images)
