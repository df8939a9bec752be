"""Measuring: what is left as it was, what it costs, and what is done where a part fails."""

import copy
from dataclasses import replace

import pytest
import torch
from support.broken import Around, CountsInABuffer, SetUp, Wrapped
from support.preflight import loaded
from torch import Tensor

from flatguard.checks.preflight.gather import CLEAN, SHOWN, measure, single_image_refusal
from flatguard.errors import DataError


def test_the_same_facts_twice_and_the_model_as_it_was(good: SetUp) -> None:
    counts = CountsInABuffer(copy.deepcopy(good.model)).eval()
    data = loaded(replace(good, model=counts))
    before, seen, count = torch.get_rng_state(), float(counts.seen), counts.count
    assert measure(data) == measure(data)
    assert torch.equal(torch.get_rng_state(), before)
    assert (float(counts.seen), counts.count) == (seen, count)
    assert not any(module.training for module in counts.modules())


def test_what_it_costs_is_bounded_and_counted(good: SetUp) -> None:
    calls: list[int] = []
    counting = Around(good.model, before=lambda x: (calls.append(len(x)), x)[1])
    data = loaded(replace(good, model=counting))
    calls.clear()
    found = measure(data)
    assert found.forwards == sum(calls) <= CLEAN + 8 * SHOWN
    assert found.backwards == SHOWN


def test_few_images_of_many_are_spread_over_all(good: SetUp) -> None:
    found = measure(loaded(good))
    assert found.clean is not None
    assert (len(found.clean.samples), found.clean.samples[0], found.clean.samples[-1]) == (
        CLEAN, 0, 299,
    )  # fmt: skip
    assert found.clean.labels == tuple(good.labels[list(found.clean.samples)].tolist())
    right = good.model(good.images[list(found.clean.samples)]).argmax(1).tolist()
    assert list(found.clean.predictions) == right


def test_samples_on_which_the_model_raises_are_left_out(good: SetUp) -> None:
    def raises(x: Tensor) -> Tensor:
        if bool((x[:, 0, 0, 0] == 1).any()):
            raise ValueError("no")
        return x

    images = good.images.clone()
    images[:, 0, 0, 0] = 0
    images[::50, 0, 0, 0] = 1
    found = measure(loaded(SetUp(Around(good.model, before=raises), images, good.labels)))
    assert found.clean is not None
    assert len(found.clean.samples) < CLEAN
    assert not set(found.clean.samples) & set(range(0, 300, 50))


def test_a_model_without_a_copy_is_measured_itself(good: SetUp) -> None:
    class Single(Wrapped):
        def __deepcopy__(self, memo: object) -> torch.nn.Module:
            raise TypeError("there is one only")

    found = measure(loaded(replace(good, model=Single(good.model).eval())))
    assert not found.on_a_copy
    assert found.after_calls is None
    assert found.value_changes == ()


def test_equal_images_are_shown_once(good: SetUp) -> None:
    same = SetUp(good.model, good.images[:1].expand(40, -1, -1, -1), good.labels[:40])
    found = measure(loaded(same))
    assert found.repeated is not None
    assert found.repeated.images == 1
    assert found.smaller_batch is None


def test_another_batch_size_is_advised_that_leaves_no_single_image(good: SetUp) -> None:
    data = loaded(good, n_examples=11, batch_size=5)
    text = single_image_refusal(data, "gives (10,) for (1, 10)")
    assert "alone in its batch of 5" in text
    assert "--batch-size 4" in text
    assert 11 % 4 != 1


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_that_the_model_does_not_have_is_refused(label: int, good: SetUp) -> None:
    labels = good.labels.clone()
    labels[150] = label
    data = loaded(replace(good, labels=labels))
    with pytest.raises(DataError, match=rf"0 to 9, .* got {label} for sample 150; "):
        measure(data)
