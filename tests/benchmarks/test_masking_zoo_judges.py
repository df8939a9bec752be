"""The zoo's other judges on networks whose gradients are known."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from benchmarks.masking_zoo import art, auto_art, baselines, binarisation, ioaf, judges
from benchmarks.masking_zoo.defences import inputs, outputs, randomised
from benchmarks.masking_zoo.digits import DigitsNet, digits, fit

EPS = 0.15
SATURATED = partial(outputs.ScaledLogits, factor=1000.0)
ROUNDED = partial(inputs.RoundedBits, bits=4)
WAVES = partial(outputs.LogitRipple, shape=(1, 8, 8), height=1.0, frequency=20.0)


@pytest.fixture(scope="module")
def data():
    images, labels = digits()
    return images[-100:], labels[-100:]


@pytest.fixture(scope="module")
def net():
    images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit(DigitsNet(), images[:500], labels[:500], epochs=6)


@pytest.fixture
def audited(net, data):
    """A network behind a defence; no attack was run."""
    torch.manual_seed(0)
    return lambda defend: judges.Audited(defend(net).eval(), *data, EPS, None)


def test_autoattack_s_flags(audited):
    def of(defend):
        return baselines.ask(audited(defend)).named

    assert "zero-gradient" in of(ROUNDED)
    assert "zero-gradient" in of(lambda net: nn.Sequential(inputs.Detached(nn.Identity()), net))
    assert "randomised" in of(partial(randomised.InputNoise, sigma=0.1))
    assert "dynamic" in of(inputs.AntiAdversary)
    assert not {"randomised", "dynamic"} & set(of(nn.Sequential))


def test_indicators_of_attack_failure(audited):
    dead, alive = (ioaf.indicators(audited(defend)) for defend in (ROUNDED, nn.Sequential))
    assert dead.unavailable == dead.unconstrained == 1.0
    assert alive.unavailable == alive.unconstrained == 0.0


def test_one_sample_whose_loss_is_tiny_does_not_raise_unstable_predictions_for_all():
    class Steep(nn.Module):
        def forward(self, x):
            rise = 1e6 * (x.flatten(1)[:, :1] - 0.5).abs() * (x.flatten(1)[:, 1:2] < 0.5)
            return torch.cat([5 - rise, torch.zeros_like(rise)], dim=1)

    images = torch.full((20, 1, 1, 2), 0.5)
    images[1:, 0, 0, 1] = 0.9
    found = ioaf.indicators(judges.Audited(Steep(), images, torch.zeros(20).long(), 0.1, None))
    assert found.unstable == pytest.approx(1 / 20)


@pytest.mark.parametrize("defend", [SATURATED, ROUNDED, inputs.Detached])
def test_a_hidden_gradient_fails_the_binarisation_test(audited, defend):
    found = binarisation.ask(audited(defend))
    assert found.alarm
    assert found.values["success"] < 0.5
    assert found.values["features"] == 1.0


@pytest.mark.parametrize("defend", [nn.Sequential, partial(outputs.Temperature, temperature=3.0)])
def test_an_honest_gradient_passes_it(audited, defend):
    found = binarisation.ask(audited(defend))
    assert not found.alarm
    assert found.values["success"] >= 0.95
    assert found.values["images"] == binarisation.SAMPLES


def test_one_miss_of_twenty_passes_and_two_do_not(audited, monkeypatch):
    for missed, alarm in ((1, False), (2, True)):
        found = torch.arange(binarisation.SAMPLES) >= missed
        monkeypatch.setattr(binarisation, "_attacked", lambda *asked, found=found: found)
        assert binarisation.ask(audited(nn.Sequential)).alarm == alarm


def test_planted_examples_lie_in_the_ball_and_the_inner_points_within_it(data):
    torch.manual_seed(0)
    image = data[0][0].clamp(0.2, 0.8)
    points = binarisation._points(image, EPS)
    distance = (points.images - image).abs().flatten(1).max(dim=1).values
    assert distance[0] == 0
    assert distance[1:-1].max() <= binarisation.ETA * EPS + 1e-6
    assert distance[-1] == pytest.approx(EPS, abs=1e-6)
    assert points.labels.tolist() == [0.0] * binarisation.INNER + [1.0]


def test_the_readout_has_the_range_of_the_logits_that_it_replaces(net, data):
    model = SATURATED(net).eval()
    head = binarisation.head_of(model, data[0])
    assert head is not None
    points = [binarisation._points(data[0][0], EPS)]
    readout = binarisation._fitted(model, head, points)
    with torch.no_grad(), binarisation._seen(head) as seen:
        model(points[0].images)
    features, logits = seen[0]
    binary = torch.stack([readout(row[None]) for row in features])
    assert binary.min() == pytest.approx(float(logits.min()), rel=1e-3, abs=1e-3)
    assert binary.max() == pytest.approx(float(logits.max()), rel=1e-3, abs=1e-3)


def test_a_model_without_a_single_head_is_binarised_on_its_outputs(net, audited, data):
    two = outputs.Vote([net, DigitsNet().eval()])
    assert binarisation.head_of(two, data[0]) is None
    waves = binarisation.ask(audited(WAVES))
    assert not waves.answered or "outputs" in waves.note
    constant = judges.Audited(Constant(), *data, EPS, None)
    assert binarisation.ask(constant) == judges.Answer.none("no readout separates the points")


class Constant(nn.Module):
    """Always right: its answer is the label 0 for whatever it sees; nothing can be read out."""

    def forward(self, x):
        return torch.eye(10)[torch.zeros(len(x)).long()] + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def test_auto_art_needs_two_of_three_signs(audited):
    honest = auto_art.ask(audited(nn.Sequential))
    shattered = auto_art.ask(audited(partial(inputs.Ripple, height=0.06, frequency=1500.0)))
    assert honest.values["noise"] < auto_art.TURNED < shattered.values["noise"]
    assert {"norm", "noise"} <= set(shattered.named)
    assert shattered.alarm
    assert honest.alarm == (len(honest.named) >= 2)
    without = auto_art.ask(audited(inputs.Detached))
    assert set(without.values) == {"discrepancy"}
    assert not without.alarm


def test_art_s_indicators_of_known_curves():
    steps = torch.arange(21.0)
    straight, knee = steps, torch.minimum(steps, torch.tensor(2.0))
    falling = torch.where(steps < 10, steps, 20 - steps)
    losses = torch.stack([straight, knee, falling, torch.zeros(21)], dim=1).double()
    wrong = torch.zeros(21, 4, dtype=torch.bool)
    wrong[5, 3] = True
    zero = torch.zeros(20, 4, dtype=torch.bool)
    zero[:10, 3] = True
    found = art.indicators(art.Path(losses, wrong, zero))
    assert found == {"silent": 0.25, "straight": 0.25, "diverging": 0.0, "zero": 0.125}
    losses[11, 1] = 0.0
    assert art.indicators(art.Path(losses, wrong, zero))["diverging"] == 0.25
    many = art.Path(losses[:, [1] * 2 + [0] * 18], wrong[:, [0] * 20], zero[:, [0] * 20])
    assert not art.indicators(many)["diverging"] > art.RAISED  # two of twenty
    wrong[-1] = True
    assert sum(art.indicators(art.Path(losses, wrong, zero)).values()) == 0.125


def test_art_sees_a_dead_gradient(audited):
    assert "zero" in art.ask(audited(ROUNDED)).named
    assert not art.ask(audited(nn.Sequential)).values["zero"]


def test_answers_are_stored_with_their_price_and_are_the_same_again(audited, data):
    model = audited(nn.Sequential)
    first, again = judges.ask_all(lambda: model), judges.ask_all(lambda: model)
    assert first == again
    assert list(first) == [judge.name for judge in judges.judges()]
    assert all(0 < answer["forwards"] < 4000 for answer in first.values())
    assert first["ART"]["forwards"] == 40 + 20 * 21
    nothing = judges.Audited(model.model, data[0], (data[1] + 5) % 10, EPS, None)
    right = int((model.model(data[0][:40]).argmax(dim=1) == nothing.labels[:40]).sum())
    silent = judges.ask_all(lambda: nothing)
    assert right > 0 or not silent["ART"]["answered"]


def test_forwards_are_counted_by_images(net):
    with judges.counted(net) as count:
        net(torch.zeros(3, 1, 8, 8))
        net(torch.zeros(4, 1, 8, 8))
    net(torch.zeros(5, 1, 8, 8))
    assert count.forwards == 7
    assert np.isfinite(count.forwards)


def test_a_judge_that_fails_has_no_answer_and_the_others_go_on(net, data):
    class Picky(nn.Module):
        """Takes batches of 20 and 40 alone."""

        def forward(self, x):
            if len(x) not in (20, 40):
                raise ValueError("20 or 40")
            return net(x)

    found = judges.ask_all(lambda: judges.Audited(Picky(), *data, EPS, None))
    assert found["AutoAttack's flags"]["answered"]
    assert "ValueError: 20 or 40" in found["binarisation test"]["note"]
    assert not found["binarisation test"]["alarm"]


def test_every_judge_has_a_new_model(net, data):
    built = []

    def fresh():
        built.append(nn.Sequential(net))
        return judges.Audited(built[-1], *data, EPS, None)

    judges.ask_all(fresh)
    assert len(built) == len(judges.judges())
