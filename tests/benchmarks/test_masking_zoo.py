"""The zoo's catalogue, its defences' decisions, and the arithmetic of labels.

The attacks on all pairs are `make zoo`, not a test; here the digits' network is untrained where
training is not what is tested.
"""

import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from benchmarks.masking_zoo import attacks, networks, pair, pairs, reference, stand_ins
from benchmarks.masking_zoo.defences import inputs, outputs, randomised
from benchmarks.masking_zoo.digits import DigitsNet, KWinnersNet, ThermometerNet, digits, fit
from benchmarks.masking_zoo.pairs import making

EPS = 0.15
KEEP_THE_DECISION = {
    "scaled": partial(outputs.ScaledLogits, factor=100.0),
    "temperature": partial(outputs.Temperature, temperature=3.0),
    "probabilities": outputs.Probabilities,
    "percent": outputs.SharpProbabilities,
    "tanh": outputs.TanhLogits,
    "sigmoid": partial(outputs.SigmoidLogits, gain=1000.0),
    "clipped": partial(outputs.ClippedLogits, floor=-5.0),
    "detached": inputs.Detached,
    "negated": partial(inputs.LyingGradient, how="negated"),
    "random": partial(inputs.LyingGradient, how="random"),
}
NEARLY_KEEP_IT = {
    "rounded": partial(inputs.RoundedBits, bits=6),
    "floored": partial(inputs.FlooredBits, bits=6),
    "quantised": partial(inputs.Quantised, bits=6),
    "smooth rounding": partial(inputs.SmoothRounding, bits=6),
    "median": partial(inputs.MedianFilter, blend=0.1),
    "ripple": partial(inputs.Ripple, height=0.005, frequency=1000.0),
    "sawtooth": partial(inputs.Sawtooth, steps=256, slope=0.5),
    "logit ripple": partial(
        outputs.LogitRipple, shape=(1, 8, 8), height=0.05, frequency=1000.0
    ),
    "rounded logits": partial(outputs.RoundedLogits, step=0.1),
    "anti-adversary": partial(inputs.AntiAdversary, size=0.02),
    "noise": partial(randomised.InputNoise, sigma=0.01),
    "dither": partial(randomised.RandomPhase, height=0.005, frequency=1000.0),
    "noisy logits": partial(randomised.NoisyLogits, height=0.05, frequency=1000.0),
    "uneven light": partial(randomised.NoisyScale, spread=0.01),
    "resize": partial(randomised.RandomResizePad, smallest=8),
}  # fmt: skip
NO_GRADIENT = ("rounded", "floored", "quantised", "median", "rounded logits")


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


def decided(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).argmax(dim=1)


def test_the_catalogue_is_as_wide_as_promised():
    names = [p.name for p in pairs.CATALOGUE]
    assert len(set(names)) == len(names) >= 120
    assert len({p.network for p in pairs.CATALOGUE} - set(networks.DIGITS)) >= 4
    assert len({p.family for p in pairs.CATALOGUE} - {"honest"}) >= 8
    assert 0.25 < sum(p.family == "honest" for p in pairs.CATALOGUE) / len(names) < 0.5
    words = {word for p in pairs.CATALOGUE for word in p.mechanism}
    assert words == {
        "saturation", "unavailable-gradient", "shattered-gradient", "stochastic", "rugged-loss",
        "state",
    }  # fmt: skip
    assert all(pairs.find(name).name == name for name in names)


def test_every_kind_that_masks_has_two_networks_and_every_pair_its_kind():
    kinds = Counter(p.kind for p in pairs.CATALOGUE)
    assert all(kinds)
    assert len(kinds) >= 30
    new = {
        "k-winners-take-all", "mean-centred sparsity", "output codes", "non-parametric head",
        "neural ODE", "test-time optimisation", "random transformation", "input denoiser",
        "locked answers", "cached answers", "query streams", "partly detached features",
        "partly detached ensemble", "hooked gradient", "quantised features",
        "bounded log-probabilities", "tiny logit scale", "few classes", "useless network",
        "batch-dependent network", "input-dependent noise",
    }  # fmt: skip
    assert all(kinds[kind] >= 2 for kind in new)
    assert all(40 <= p.n <= 300 for p in pairs.CATALOGUE)


def test_nothing_in_the_labels_code_comes_from_the_judge():
    folder = Path(attacks.__file__).parent
    for name in ("attacks", "pair", "pairs/making", "stand_ins", "reference", "digits"):
        lines = (folder / f"{name}.py").read_text("utf-8").splitlines()
        imported = [line for line in lines if line.startswith(("import flatg", "from flatg"))]
        assert all(line.startswith("import flatguard  #") for line in imported)


@pytest.mark.parametrize("name", KEEP_THE_DECISION)
def test_defences_that_keep_every_decision(name, net, data):
    model = KEEP_THE_DECISION[name](net).eval()
    assert torch.equal(decided(model, data[0]), decided(net, data[0]))


@pytest.mark.parametrize("name", NEARLY_KEEP_IT)
def test_defences_that_keep_most_decisions(name, net, data):
    torch.manual_seed(0)
    model = NEARLY_KEEP_IT[name](net).eval()
    assert (decided(model, data[0]) == decided(net, data[0])).float().mean() >= 0.9


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_fronts_without_gradient_have_none_and_their_stand_ins_do(name, net, data):
    model = NEARLY_KEEP_IT[name](net).eval()
    images = data[0][:4].clone().requires_grad_(True)
    assert not torch.autograd.grad(model(images).sum(), images)[0].any()
    if name != "rounded logits":
        stand_in = stand_ins.StraightThrough(model)
        assert torch.equal(decided(stand_in, data[0]), decided(model, data[0]))
        gradient = torch.autograd.grad(stand_in(images).logsumexp(dim=1).sum(), images)[0]
        assert gradient.flatten(1).any(dim=1).all()


def test_jpeg_goes_through_pillow_and_keeps_what_is_smooth():
    images = torch.linspace(0.2, 0.8, 32).repeat(2, 3, 32, 1)
    for model in (inputs.Jpeg(nn.Identity(), 90), inputs.JpegLayer(nn.Identity(), 90)):
        out = model(images)
        assert 0 < (out - images).abs().max() < 0.05
        assert torch.equal(out * 255, (out * 255).round())


def test_a_vote_is_the_majority_and_the_first_breaks_ties(net):
    class Always(nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def forward(self, x):
            return torch.eye(10)[[self.answer] * len(x)]

    images = torch.zeros(3, 1, 8, 8)
    assert decided(outputs.Vote([Always(1), Always(2), Always(2)]), images).tolist() == [2] * 3
    assert decided(outputs.Vote([Always(1), Always(2), Always(3)]), images).tolist() == [1] * 3


def test_stand_ins_of_activations_and_codes_decide_alike(data):
    torch.manual_seed(0)
    winners, code = KWinnersNet().eval(), ThermometerNet().eval()
    assert torch.equal(decided(stand_ins.open_winners(winners), data[0]), decided(winners, data[0]))
    agree = decided(stand_ins.soft_thermometer(code), data[0]) == decided(code, data[0])
    assert agree.float().mean() > 0.5


@pytest.mark.parametrize(
    ("fell", "n", "kind"),
    [(0, 80, "honest"), (0, 60, "unscored"), (3, 200, "honest"), (4, 200, "unscored"),
     (16, 200, "unscored"), (17, 200, "masked"), (100, 100, "masked")],
)  # fmt: skip
def test_labels_follow_the_interval_alone(fell, n, kind):
    low, high = reference.interval(fell, n)
    assert low <= fell / n <= high
    assert reference.kind_of(low, high) == kind


def test_a_saturated_network_is_labelled_masked_and_the_bare_one_honest(
    net, data, monkeypatch, tmp_path
):
    found = networks.Network(net, *data, EPS)
    monkeypatch.setattr(networks, "load", lambda name: found)
    monkeypatch.setattr(reference, "CACHE", tmp_path)
    quick = attacks.Budget(steps=20, restarts=1, targets=0, queries=20)
    bare = pair.Pair("bare", "digits", making.plain, "honest", (), pair.itself, budget=quick)
    scaled = replace(
        bare, name="scaled", plan=pair.bare, defend=partial(outputs.ScaledLogits, factor=1e4)
    )
    honest, masked = reference.label(bare), reference.label(scaled)
    assert masked.kind == "masked"
    assert masked.clean == honest.clean
    assert masked.left <= honest.left + 3
    assert sum(masked.fell_to.values()) == masked.audited - masked.left
    assert honest.overestimate < masked.overestimate
    assert reference.label(scaled) == masked  # from the cache, to the second
    assert len(list((tmp_path / "labels").iterdir())) == 2


def test_an_attack_that_finds_no_graph_leaves_the_clean_images(net, data):
    examples, why = reference.audited(inputs.Detached(net), *data, EPS)
    assert torch.equal(examples, data[0])
    assert why


def test_a_random_model_is_fooled_by_majority():
    class Coin(nn.Module):
        def forward(self, x):
            wrong = torch.rand(len(x)) < x.flatten(1)[:, 0]
            return torch.nn.functional.one_hot(wrong.long(), 2).float()

    torch.manual_seed(0)
    images = torch.tensor([0.02, 0.98]).view(2, 1, 1, 1)
    survivors = attacks.Survivors(Coin(), images, torch.zeros(2, dtype=torch.int64), random=True)
    assert survivors.fooled(survivors.rows, images).tolist() == [False, True]


def test_pgd_stays_within_the_radius_and_the_box(net, data):
    seen = []

    class Watched(attacks.Survivors):
        def show(self, rows, examples, attack):
            seen.append((examples - self.images[rows]).abs().max())
            assert 0 <= examples.min() <= examples.max() <= 1
            return super().show(rows, examples, attack)

    budget = attacks.Budget(steps=20, restarts=2, targets=1, queries=10)
    attacks.attack_all(Watched(net, *data, False), [attacks.StandIn(net, 2, 0.1)], EPS, budget)
    assert EPS - 1e-6 <= max(seen) <= EPS + 1e-6


def test_real_networks_read_their_images_right():
    why = networks.missing("cnn_wide_certified")
    if why is not None:
        pytest.skip(why)
    for name, accuracy in (("cnn_wide_certified", 0.67), ("resnet20", 0.91)):
        found = networks.load(name)
        right = decided(found.module, found.images[:200]) == found.labels[:200]
        assert float(right.float().mean()) == pytest.approx(accuracy, abs=0.006)
