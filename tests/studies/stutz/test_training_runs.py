"""Claims over training runs follow rows whose truth is known."""

import numpy as np
import pytest
from support.studies import checkpoint, verdicts

from flatguard.studies.stutz import correlation
from flatguard.studies.stutz.checkpoint import Checkpoint
from flatguard.studies.stutz.table import table
from flatguard.studies.stutz.training_runs import claims_over


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "RESAMPLES", 300)


def related(sign: float, count: int = 30) -> list[Checkpoint]:
    """Runs whose losses, errors and gaps rise with flatness (or fall, or neither)."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(count):
        flat = float(generator.uniform())
        level = sign * flat + 0.1 * float(generator.normal())
        found.append(
            checkpoint(
                f"m{index % 3}-{1 + index % 2}-s{index}", flatness=flat, flatness_clean=flat,
                worst=flat, training_flatness=flat, rloss=level, rerr=0.5 + level / 4, gap=level,
                training_rerr=0.5 - level / 4,
            )
        )  # fmt: skip
    return found


@pytest.mark.usefixtures("few_resamples")
def test_claims_follow_the_rows() -> None:
    names = [
        "flatness-rloss", "flatness-rerr", "worst-rloss", "clean-flatness-rloss",
        "training-flatness-rloss", "flatness-gap", "within-methods", "robust-are-flat",
    ]  # fmt: skip
    for sign, expected in ((1.0, "agrees"), (-1.0, "differs"), (0.0, "differs")):
        rows = related(sign)
        found = verdicts(
            [
                claim
                for name in ("fig1", "fig7", "fig6", "table1")
                for claim in claims_over(name, rows)
            ]
        )
        assert {found[name] for name in names} == {expected}
        assert found["training-error"] == "agrees"  # the two errors are related by themselves
    assert found["early-stopping"] == "not-measured"


@pytest.mark.usefixtures("few_resamples")
def test_overfitting_is_seen_where_it_is_and_only_there() -> None:
    """Held-out samples choose epoch 40; then losses rise, or stay."""
    generator = np.random.default_rng(0)

    def epochs(grows: bool) -> list[Checkpoint]:
        found = []
        for seed in range(8):
            for epoch, held, loss in ((20, 0.6, 2.0), (40, 0.3, 1.0), (80, 0.35, 2.0)):
                noise = 0.05 * float(generator.normal())
                level = (loss if grows or epoch == 20 else 1.0) + noise
                found.append(
                    checkpoint(
                        f"at-s{seed}", epoch, held_out_rerr=held, rloss=level, rloss_correct=level,
                        rloss_incorrect=level, rerr=level / 4, training_rloss=2 - epoch / 60,
                        flatness=level,
                    )
                )  # fmt: skip
        return found

    grown, steady = epochs(True), epochs(False)
    assert set(verdicts(claims_over("fig2", grown)).values()) == {"agrees"}
    assert verdicts(claims_over("fig2", steady))["rloss-rises"] == "differs"
    assert verdicts(claims_over("fig5", grown))["flatness-rises"] == "agrees"
    assert verdicts(claims_over("fig5", steady))["flatness-rises"] == "differs"
    assert verdicts(claims_over("table1", grown))["early-stopping"] == "agrees"
    (first, *_) = table(grown)
    assert first.stopped is not None
    assert first.stopped.epoch == 40
    nothing = [c.model_copy(update={"held_out_rerr": None}) for c in grown]
    assert set(verdicts(claims_over("fig2", nothing)).values()) == {"not-measured"}


@pytest.mark.usefixtures("few_resamples")
def test_notes_name_attack_methods_and_counts() -> None:
    found = {claim.name: claim for claim in claims_over("fig1", related(1.0))}
    assert found["flatness-rerr"].note == (
        "ρ over 30 training runs; n counts checkpoints. Robust error against standard; the paper "
        "takes AutoAttack (standard)."
    )
    (within,) = claims_over("fig6", related(1.0))
    assert within.note.endswith("Ranked within each of: m0, m1, m2.")
    (alone,) = claims_over("fig6", [checkpoint(f"at-s{seed}", rloss=1.0) for seed in range(6)])
    assert alone.verdict == "not-measured"
    assert alone.note.startswith("no method was given with several strengths")
