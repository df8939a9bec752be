"""The rows of Table 1, and the epochs of each training run."""

import pytest
from support.studies import checkpoint

from flatguard.studies.stutz.table import (
    by_run,
    chosen,
    frame,
    last_epochs,
    method_of,
    table,
    variant_of,
)


@pytest.mark.parametrize(
    ("run", "variant", "method"),
    [
        ("awp-0.01-s3", "awp-0.01", "awp"),
        ("label-noise-0.3-s0", "label-noise-0.3", "label-noise"),
        ("weight-decay-5e-4-seed-2", "weight-decay-5e-4", "weight-decay"),
        ("at-s0", "at", "at"),
        ("resnet18", "resnet18", "resnet18"),
    ],
)
def test_names_say_method_and_seed(run: str, variant: str, method: str) -> None:
    assert (variant_of(run), method_of(run)) == (variant, method)


def test_epochs_are_ordered_and_early_stopping_takes_the_first_of_the_best() -> None:
    epochs = [
        checkpoint("b-s0", 30, held_out_rerr=0.2, rerr=0.35),
        checkpoint("b-s0", 10, held_out_rerr=0.3, rerr=0.5),
        checkpoint("b-s0", 20, held_out_rerr=0.2, rerr=0.3),
        checkpoint("a-s0", 10, rerr=0.4, rloss=1.0),
    ]
    runs = by_run(epochs)
    assert list(runs) == ["a-s0", "b-s0"]
    assert [one.epoch for one in runs["b-s0"]] == [10, 20, 30]
    assert chosen(runs["b-s0"]) == 1
    assert chosen(runs["a-s0"]) is None
    first, second = table(epochs)
    assert (first.last.run, first.last.epoch, first.epochs) == ("b-s0", 30, 3)
    assert first.stopped is not None
    assert (first.stopped.epoch, first.stopped.rerr) == (20, 0.3)
    assert second.stopped is None
    assert last_epochs(epochs)["rerr"].tolist() == [0.4, 0.35]
    rows = frame(epochs)
    assert rows["rloss"].isna().sum() == 3
    assert rows["rloss"].dtype == rows["held_out_rerr"].dtype == "float64"
