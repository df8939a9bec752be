"""Other kinds of preprocessing: each is found where it is the one that is missing."""

import pytest
import torch
from support.broken import Around, SetUp
from support.preflight import loaded

from flatguard.checks.preflight.calls import Caller
from flatguard.checks.preflight.inputs import InputMap, try_inputs
from flatguard.environment.randomness import preserved
from flatguard.targets.normalized import Normalized

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tried(made: SetUp, thorough: bool = True, random: bool = False):
    data = loaded(made)
    caller = Caller(data.target.model, CPU, seed=0, batch=128)
    images, labels = made.images[:200], made.labels[:200]
    with preserved(CPU):
        own = caller.logits(images).argmax(1) == labels
        found = try_inputs(data, caller, images, labels, own, thorough, random)
    return found, caller.forwards - 200


def test_a_map_is_what_a_normalisation_does() -> None:
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    mine = Normalized(torch.nn.Identity(), MEAN, STD)(images)
    assert torch.allclose(InputMap("", MEAN, STD).apply(images), mine)
    turned = InputMap("", MEAN, STD, reversed=True).apply(images)
    assert torch.allclose(turned, InputMap("", MEAN, STD).apply(images.flip(1)))


def test_what_is_missing_is_found_with_its_numbers(good: SetUp) -> None:
    net = Around(good.model, before=lambda x: x.flip(1))
    found, _ = tried(SetUp(net, good.images, good.labels))
    best = max(found, key=lambda each: each.correct)
    assert (best.name, best.how, best.images) == ("BGR channels", "with BGR channels", 200)
    own = int((net(good.images[:200]).argmax(1) == good.labels[:200]).sum())
    right = int((good.model(good.images[:200]).argmax(1) == good.labels[:200]).sum())
    assert (best.own, best.correct) == (own, right)
    assert best.gained - best.lost == right - own


def test_nothing_is_better_for_an_honest_model_and_that_is_cheap(good: SetUp) -> None:
    found, forwards = tried(good, thorough=False)
    assert found == ()
    assert forwards <= 13 * 32
    assert tried(good)[1] > forwards


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels_is_tried(channels: int) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * channels, 4)).eval()
    images = torch.rand(200, channels, 4, 4)
    labels = net(images * 255).argmax(1)
    dark = SetUp(Around(net, before=lambda x: x - 0.5 + 1 / 255), images, labels)
    found, _ = tried(dark)
    assert all(each.images == 200 for each in found)


def test_a_normalisation_that_is_given_can_be_the_fault(good: SetUp) -> None:
    twice = Normalized(good.model, (3.0,) * 3, (0.1,) * 3)
    found, _ = tried(SetUp(twice, good.images, good.labels))
    best = max(found, key=lambda each: each.correct)
    assert best.how == "without the normalisation"


def test_louder_images_do_not_explain_a_random_model(good: SetUp) -> None:
    noisy = Around(good.model, after=lambda z: z + 8 * torch.randn_like(z)).eval()
    made = SetUp(noisy, good.images, good.labels)
    assert "images in [0, 255]" in {each.name for each in tried(made)[0]}
    assert "images in [0, 255]" not in {each.name for each in tried(made, random=True)[0]}
