"""One image in two runs: the one on which they differ, its end in both, and its way there."""

from dataclasses import replace

import numpy as np
import pytest

from flatguard.reporting.compare import Comparison, compare_runs
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.paired_path import paired_path
from flatguard.runs.run import Run

Pair = tuple[JudgedRun, JudgedRun, Comparison]


@pytest.fixture
def pair(run: Run) -> Pair:
    """A run beside itself."""
    return JudgedRun.load(run), JudgedRun.load(run), compare_runs(run, run)


def with_difference(found: Comparison, index: int, *samples: int) -> Comparison:
    """As if these samples were correct in the second run only."""
    rows = list(found.accuracies)
    rows[index] = rows[index].model_copy(update={"only_second": samples})
    return found.model_copy(update={"accuracies": tuple(rows)})


@pytest.mark.parametrize(
    ("index", "chosen"), [(0, 0), (1, 7), (2, 7)], ids=["clean", "reported", "corrected"]
)
def test_it_is_the_first_image_on_which_the_results_differ(
    pair: Pair, index: int, chosen: int
) -> None:
    one, other, found = pair
    path = paired_path(one, other, with_difference(found, index, 7, 9))
    assert path is not None
    assert path.sample == chosen
    assert path.sentence.startswith(f"Image {chosen}, ")
    assert path.sentence.count("the loss went from") == 2
    assert [image.alt for image in path.images] == [
        f"image {chosen}, clean",
        f"image {chosen} after the attack of A",
        f"change by the attack of A in image {chosen}, magnified",
        f"image {chosen} after the attack of B",
        f"change by the attack of B in image {chosen}, magnified",
    ]


def test_both_losses_are_one_figure_with_a_line_each(pair: Pair) -> None:
    path = paired_path(*pair)
    assert path is not None
    loss, *sharpness = path.figures
    assert [name[0] for name, _ in loss.legend] == ["A", "B"]
    assert len({tone for _, tone in loss.legend}) == 2
    assert loss.table is not None
    steps = len(pair[0].paths([path.sample]))
    assert len(loss.table.rows) == steps
    assert [figure.text.name for figure in sharpness] == [
        "paired-sharpness-a", "paired-sharpness-b",
    ]  # fmt: skip


def test_a_sharpness_that_stays_as_it_is_is_not_drawn(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, found = pair
    path_of_one = other.paths([0])
    flat = np.full(len(path_of_one), -1638.75, np.float32)
    still = replace(path_of_one, sharpness=flat)
    monkeypatch.setattr(JudgedRun, "paths", lambda self, chosen: still)
    path = paired_path(one, other, found)
    assert path is not None
    assert [figure.text.name for figure in path.figures] == ["paired-loss"]


def test_without_a_call_of_the_attack_there_is_no_path(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = pair[0].paths([10**6])
    assert len(nothing) == 0
    monkeypatch.setattr(JudgedRun, "paths", lambda self, chosen: nothing)
    assert paired_path(*pair) is None
