"""RobustBench's published clean accuracies."""

import csv
from dataclasses import replace
from importlib import resources

import pytest
import torch
from support.broken import SetUp
from support.preflight import loaded, tried

from flatguard.checks.preflight.facts import Published
from flatguard.checks.preflight.gather import measure
from flatguard.checks.preflight.judged import preflight
from flatguard.checks.preflight.leaderboard import clean_accuracy, published
from flatguard.data.arrays import ArrayDataset
from flatguard.execution.context import ModelAndData

ENTRY = "Carmon2019Unlabeled"
SOURCE = f"RobustBench {ENTRY} (cifar10, Linf), from a folder"


def as_entry(made: SetUp, dataset: str = "cifar10", source: str = SOURCE) -> ModelAndData:
    """A set-up that claims to be a leaderboard's entry on its benchmark's images."""
    found = loaded(made)
    data = ArrayDataset(made.images, made.labels.numpy(), dataset)
    return replace(found, target=replace(found.target, source=source), dataset=data)


def test_a_known_entry_has_its_figure() -> None:
    assert clean_accuracy("cifar10", "Linf", ENTRY) == pytest.approx(0.8969)
    assert clean_accuracy("cifar10", "L2", ENTRY) is None
    assert clean_accuracy("cifar10", "Linf", "Nobody2099Nothing") is None


def test_every_row_of_the_package_data_is_found_again() -> None:
    file = resources.files("flatguard.checks.preflight") / "robustbench_leaderboard.csv"
    rows = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    assert len(rows) > 100
    for row in rows[:: len(rows) // 20]:
        found = clean_accuracy(row["dataset"], row["threat_model"], row["model"])
        wanted = float(row["clean_accuracy"]) / 100 if row["clean_accuracy"] else None
        assert found == wanted
        assert found is None or 0.1 < found < 1


@pytest.mark.parametrize(
    ("dataset", "source", "known"),
    [
        ("cifar10", SOURCE, True),
        ("cifar100", SOURCE, False),
        ("cifar10", "a module from Python", False),
        ("cifar10", "RobustBench Nobody2099Nothing (cifar10, Linf), a file", False),
    ],
)
def test_only_an_entry_on_its_own_images_is_compared(
    good: SetUp, dataset: str, source: str, known: bool
) -> None:
    found = published(as_entry(good, dataset, source))
    assert found == (Published(entry=ENTRY, accuracy=0.8969) if known else None)


def test_random_weights_in_place_of_the_entry_s_are_refused(good: SetUp) -> None:
    torch.manual_seed(5)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    found = preflight(as_entry(replace(good, model=net.eval())))
    assert found.exit_code == 3
    assert "no robustness to judge" in (found.nothing_to_judge or "")
    assert found.facts.published is not None


def test_weights_that_are_far_from_the_figure_are_refused_and_named(good: SetUp) -> None:
    """Beyond chance, but far below what is published: other weights, or other preprocessing."""
    wrong = good.labels.clone()
    wrong[::3] = torch.randint(0, 10, wrong[::3].shape, generator=torch.Generator().manual_seed(0))
    found = preflight(as_entry(replace(good, labels=wrong)))
    assert found.exit_code == 3
    assert f"89.7% is published for {ENTRY}" in found.findings[0].summary
    assert tried(replace(good, labels=wrong)).exit_code == 0


def test_an_entry_that_is_as_good_as_published_is_passed_in_silence(good: SetUp) -> None:
    found = preflight(as_entry(good))
    assert found.exit_code == 0
    assert {finding.status for finding in found.findings} == {"pass"}
    assert measure(as_entry(good)).published == Published(entry=ENTRY, accuracy=0.8969)
