"""Figure 15: first sharper, then flatter, tested on paths whose shape is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.language_models import tiny
from support.prompt_runs import context_of, run_of

from flatguard.execution.progress import Silent
from flatguard.studies import find_study
from flatguard.studies.reproduce import reproduce_from_runs
from flatguard.studies.study import Subject
from flatguard.studies.walter.prompt_path import others_peaks, prompts_of

pytest.importorskip("nanogcg")
WORDS = (" x", " world", " hello", " answer", " quick")
PROMPTS = ("Say it.", "Repeat it.", "Name it.", "Ask.")


def run(folder: Path, prompts: int):  # type: ignore[no-untyped-def]
    model = tiny()
    pairs = [(f"{n}: {PROMPTS[n % 4]}", "Sure") for n in range(prompts)]
    taken = [[model.encode(WORDS[(n + i) % 5]) for i in range(5)] for n in range(prompts)]
    return run_of(folder, context_of(pairs, steps=4), taken)


def test_claims_are_counted_by_prompt(tmp_path: Path) -> None:
    found = run(tmp_path / "run", 7)
    outcome = prompts_of(Subject(find_study("walter-fig15"), (), Silent(), prompt_run=found))
    kappa = [[one.accepted.log_mean_kappa for one in steps] for steps in found.steps]
    held = {"sharper": 0, "flatter": 0, "both": 0}
    for row, path in enumerate(kappa):
        others = np.median([other for n, other in enumerate(kappa) if n != row], axis=0)
        peak = path[int(others.argmax())]
        held["sharper"] += peak > path[0]
        held["flatter"] += peak > path[-1]
        held["both"] += path[0] < peak > path[-1]
    for claim in outcome.claims:
        assert (claim.ours, claim.samples) == (held[claim.name] / 7, 7), claim.name
        low, _ = claim.interval or (0.0, 0.0)
        assert (claim.verdict == "agrees") == (low > 0.5)
    assert len(outcome.figures["examples"]) == 3
    assert len(outcome.figures["log_kappa"][2]) == 5
    json.dumps(outcome.figures, allow_nan=False)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), peak=st.integers(1, 8))
def test_the_peak_is_found_on_the_other_prompts(seed: int, peak: int) -> None:
    """A path of its own, however large, does not decide where it is looked for."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (9, 10))
    paths = -np.abs(np.arange(10) - peak) + noise
    odd = np.zeros((1, 10))
    odd[0, (peak + 5) % 10] = 1000.0
    assert others_peaks(np.vstack([paths, odd]))[-1] == peak


def test_noise_does_not_agree() -> None:
    """Of white noise, about half of the prompts rise and about half fall."""
    draws = np.random.default_rng(0).normal(size=(400, 51))
    peaks = others_peaks(draws)
    rise = np.mean([path[peak] > path[0] for path, peak in zip(draws, peaks, strict=True)])
    assert 0.4 < rise < 0.6
    assert np.mean([path.max() > path[0] for path in draws]) > 0.95


def test_one_prompt_is_not_enough(tmp_path: Path) -> None:
    found = run(tmp_path / "run", 1)
    result = reproduce_from_runs("walter-fig15", [found.path])
    assert {claim.verdict for claim in result.claims} == {"not-measured"}
    assert result.claims[0].note == "1 prompts have all their steps: two are needed"
