"""What the zoo's defences do to answers and gradients, on small networks without training."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from benchmarks.masking_zoo import deciding, digits_networks
from benchmarks.masking_zoo.attacks import Survivors
from benchmarks.masking_zoo.defences import (
    batches,
    denoisers,
    features,
    hashed,
    heads,
    hooks,
    optimising,
    randomised,
    stateful,
)
from benchmarks.masking_zoo.digits import DigitsNet, digits


@pytest.fixture(scope="module")
def images():
    return digits()[0][-24:]


@pytest.fixture(scope="module")
def bank():
    images, labels = digits()
    return images[:100], labels[:100]


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return DigitsNet().eval()


def answers(model, images):
    with torch.no_grad():
        return model.eval()(images)


def gradient(model, images):
    at = images.clone().requires_grad_(True)
    logits = model.eval()(at)
    loss = nn.functional.cross_entropy(logits, torch.zeros(len(at), dtype=torch.int64))
    return torch.autograd.grad(loss, at)[0]


def agreement(one, other):
    return float((one.sign() == other.sign()).float().mean())


@pytest.mark.parametrize("kind", [hooks.TensorHook, hooks.ModuleHook])
def test_hooks_change_gradients_and_no_answer(kind, net, images):
    true = gradient(net, images)
    for change in (hooks.mirrored, hooks.drowned, hooks.mostly_negated):
        model = kind(net, change)
        assert torch.equal(answers(model, images), answers(net, images))
        assert agreement(gradient(model, images), true) < 0.7
    for change in (hooks.shrunk, hooks.clipped, hooks.looked_at):
        assert agreement(gradient(kind(net, change), images), true) > 0.99


def test_a_locked_answer_comes_after_a_few_similar_queries_and_keeps_its_gradient(net, images):
    model = stateful.Locked(net, reach=0.2, after=2)
    near = (images + 0.1).clamp(0, 1)
    assert torch.equal(answers(model, images), answers(net, images))
    assert torch.equal(answers(model, near), answers(net, near))
    assert torch.allclose(answers(model, near), answers(net, images), atol=1e-5)
    assert agreement(gradient(model, near), gradient(net, near)) > 0.99
    assert torch.equal(answers(deciding.Fresh(model), near)[:1], answers(model, near)[:1])


def test_a_cache_answers_similar_images_without_gradient(net, images):
    model = stateful.Cached(net, cell=2, reach=0.1)
    first = answers(model, images)
    near = images * 0.95
    assert torch.equal(answers(model, near), first)
    assert not gradient(model, near).any()


def test_a_query_stream_gets_a_label_alone(net, images):
    model = stateful.Rejecting(net, levels=2, share=0.5)
    first = answers(model, images[:4])
    assert torch.equal(first, answers(net, images[:4]))
    again = answers(model, images[:4] * 0.99)
    assert torch.equal(again.argmax(dim=1), first.argmax(dim=1))
    assert set(again.unique().tolist()) == {0.0, 10.0}


@pytest.mark.parametrize(
    "kind", [partial(stateful.Watching, reach=0.5, after=1), stateful.ExactCache, stateful.Counting]
)
def test_a_memory_that_only_watches_changes_nothing(kind, net, images):
    model = kind(net)
    for _ in range(4):
        assert torch.equal(answers(model, images), answers(net, images))


def test_in_the_initial_state_nothing_is_remembered(net, images):
    labels = answers(net, images).argmax(dim=1)
    model = stateful.Locked(net, reach=2.0, after=0)
    shown = deciding.InInitialState(model, images, labels, False)
    rows = torch.arange(len(images))
    flipped = 1 - images
    expected = answers(net, flipped).argmax(dim=1) != labels
    for _ in range(2):
        found = shown.fooled(rows, flipped)
        assert found.sum() <= expected.sum()
        assert torch.equal(found, shown.fooled(rows, flipped))
    assert not model.keys


def test_an_example_is_judged_alone_in_the_clean_batch(net, images):
    class Leader(nn.Module):
        """Everybody is wrong where anybody's first pixel is bright."""

        def forward(self, x):
            alarm = (x[:, 0, 0, 0] > 0.9).any().long()
            own = (x[:, 0, 7, 7] > 0.9).long()
            return nn.functional.one_hot(torch.maximum(own, alarm * (own + 1)).clamp(max=2), 3)

    clean = torch.zeros_like(images)
    labels = torch.zeros(len(images), dtype=torch.int64)
    examples = clean.clone()
    examples[0, 0, 0, 0] = 1.0  # makes the whole batch wrong
    examples[1, 0, 7, 7] = 1.0  # is wrong by itself
    rows = torch.arange(len(images))
    together = Survivors(Leader(), clean, labels, False).fooled(rows, examples)
    alone = deciding.AloneInCleanBatch(Leader(), clean, labels, False).fooled(rows, examples)
    assert together.all()
    assert alone.nonzero().flatten().tolist() == [0, 1]


def test_batch_dependent_answers_and_the_look_alike(net, images):
    pooled = digits_networks.PooledNet().eval()
    for model in (batches.BatchStatistics(pooled), batches.BatchCentred(net, images * 0.5)):
        assert not torch.allclose(answers(model, images)[:3], answers(model, images[:3]), atol=1e-4)
    scaled = batches.BatchScaled(net)
    assert torch.equal(answers(scaled, images).argmax(dim=1), answers(net, images).argmax(dim=1))
    frozen = batches.FrozenBatch(batches.BatchCentred(net, images * 0.5), images)
    assert answers(frozen, images[:3]).shape == (3, 10)


@pytest.mark.parametrize("kind", [optimising.Confident, optimising.Hedged])
def test_a_search_moves_the_image_whatever_its_gradient_is(kind, net, images):
    cut, straight, unrolled = (
        kind(net, 3, 0.1, how) for how in (optimising.CUT, optimising.STRAIGHT, optimising.UNROLLED)
    )
    moved = answers(cut, images)
    assert not torch.allclose(moved, answers(net, images))
    for other in (straight, unrolled):
        assert torch.allclose(answers(other, images), moved, atol=1e-4)
        assert gradient(other, images).flatten(1).any(dim=1).all()
    assert not gradient(cut, images).any()
    other = optimising.searching(cut, optimising.STRAIGHT)
    assert torch.allclose(answers(other, images), moved, atol=1e-4)
    assert (cut.how, other.how) == (optimising.CUT, optimising.STRAIGHT)


def test_purification_brings_an_image_nearer_to_what_the_denoiser_makes(net, images):
    denoiser = digits_networks.Denoiser().eval()
    model = optimising.Purified(net, denoiser, 5, 0.1, optimising.CUT)
    with torch.no_grad():
        before = (denoiser(images) - images).norm()
        found = model.search(images)
        assert (denoiser(found) - found).norm() < before


@pytest.mark.parametrize("kind", [denoisers.Median, denoisers.Bilateral])
def test_a_filter_has_its_gradient_or_none(kind, net, images):
    true, cut, straight = (
        kind(net, how) for how in (denoisers.TRUE, denoisers.CUT, denoisers.STRAIGHT)
    )
    assert torch.allclose(answers(true, images), answers(cut, images), atol=1e-6)
    assert torch.allclose(answers(true, images), answers(straight, images), atol=1e-6)
    assert gradient(true, images).any()
    assert gradient(straight, images).any()
    assert not gradient(cut, images).any()


def test_values_near_the_mean_are_flattened(net, images):
    model = features.mean_sparse(net, images, width=0.5)
    stage = next(part for part in model.modules() if isinstance(part, features.MeanSparse))
    h = torch.randn(4, 32, 8, 8) * 3
    flat = stage(h)
    near = (h - stage.mean).abs() <= 0.5 * stage.spread
    assert torch.equal(flat[~near], h[~near])
    assert torch.equal(flat[near], stage.mean.expand_as(h)[near])
    assert not any(isinstance(part, features.MeanSparse) for part in net.modules())
    opened = features.with_straight_stages(model)
    assert torch.allclose(answers(opened, images), answers(model, images), atol=1e-5)
    assert not torch.equal(gradient(opened, images), gradient(model, images))


def test_detached_and_quantised_features(net, images):
    logits = answers(net, images)
    for share in (0.0, 0.5, 1.0):
        model = features.PartlyDetached(net, share)
        assert torch.allclose(answers(model, images), logits, atol=1e-6)
    half, whole = features.PartlyDetached(net, 0.5), features.PartlyDetached(net, 0.0)
    assert torch.allclose(gradient(whole, images), gradient(net, images), atol=1e-6)
    assert not torch.allclose(gradient(half, images), gradient(net, images), atol=1e-6)
    assert not gradient(features.QuantisedFeatures(net, 0.1), images).any()
    fine = features.QuantisedFeatures(net, 1e-4, straight=True)
    assert torch.allclose(answers(fine, images), logits, atol=1e-3)
    assert torch.allclose(gradient(fine, images), gradient(net, images), atol=1e-4)
    pair = features.MeanOf([net, net], detached=1)
    assert torch.allclose(answers(pair, images), logits, atol=1e-6)


def test_heads_without_weights_agree_with_their_bank(net, bank):
    images, labels = bank
    for kind, settings in (
        (heads.NearestDistance, {}),
        (heads.NeighbourVote, {"k": 1}),
        (heads.KernelDensity, {"width": 0.01, "logs": True}),
        (heads.KernelDensity, {"width": 0.01, "logs": False}),
    ):
        model = kind(net, images, labels, **settings)
        assert (answers(model, images).argmax(dim=1) == labels).float().mean() > 0.95
    assert not gradient(heads.NeighbourVote(net, images, labels, k=3), images).any()
    prototypes = heads.Prototypes(net, images, labels, 5.0)
    assert prototypes.bank.shape == (10, 64)


def test_bounded_scores_and_groups_keep_the_decision(net, images):
    top = answers(net, images).argmax(dim=1)
    bounded = heads.BoundedLogs(net, -3.0, -0.1)
    assert torch.equal(answers(bounded, images).argmax(dim=1), top)
    groups = (0, 1, 0, 1, 0, 1, 0, 1, 0, 1)
    shares = torch.softmax(answers(net, images), dim=1)
    grouped = torch.softmax(answers(heads.Grouped(net, groups), images), dim=1)
    assert torch.allclose(grouped[:, 1], shares[:, 1::2].sum(dim=1), atol=1e-5)
    assert set(answers(heads.Constant(net, 7), images).argmax(dim=1).tolist()) == {7}


def test_code_words_are_far_apart_and_steep_bits_saturate(images):
    for bits in (16, 32):
        words = digits_networks.walsh(bits)
        assert words.shape == (10, bits)
        assert torch.equal(words @ words.T, bits * torch.eye(10))
    model = digits_networks.CodeNet(16, gain=1e4).eval()
    assert not gradient(model, images).flatten(1).any(dim=1).all()
    linear = digits_networks.CodeNet(16, linear=True).eval()
    assert gradient(linear, images).flatten(1).any(dim=1).all()


def test_the_adjoint_needs_many_steps_where_the_flow_contracts(images):
    torch.manual_seed(0)
    direct = digits_networks.OdeNet(decay=4.0, steps=40).eval()
    fine, coarse = (digits_networks.OdeNet(4.0, 40, back) for back in (400, 1))
    for other in (fine, coarse):
        other.load_state_dict(direct.state_dict())
        assert torch.equal(answers(other, images), answers(direct, images))
    true = gradient(direct, images)
    assert agreement(gradient(fine, images), true) > 0.95
    assert agreement(gradient(coarse, images), true) < agreement(gradient(fine, images), true)


def test_hashed_noise_is_a_function_of_the_image_alone(images):
    noise = hashed.hashed_noise(images, 64)
    assert torch.allclose(hashed.hashed_noise(images[5:7], 64), noise[5:7], atol=1e-4)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.1)
    other = hashed.hashed_noise(images + 1e-4, 64)
    assert abs(float((other * noise).mean())) < 0.2


def test_random_transformations_differ_from_call_to_call(net, images):
    for model in (
        randomised.LogitNoise(net, 0.5),
        randomised.RandomShift(net, 1),
        randomised.RandomFlip(net),
        randomised.PixelDropout(net, 0.2),
        randomised.Barrage(net, 0.3),
    ):
        assert not torch.equal(answers(model, images), answers(model, images))
        assert gradient(model, images).any()
