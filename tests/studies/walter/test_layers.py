"""Figure 14: claims from a table whose truth is known, and a run."""

import pandas as pd
from support.studies import Plain, subject_of

from flatguard.studies.reproduce import reproduce
from flatguard.studies.walter import layers
from flatguard.studies.walter.path import walk_all


def table(samples: int, peaked: int) -> pd.DataFrame:
    """Head and one layer: `peaked` samples have their largest κ on the attack's path."""
    rows = []
    for sample in range(samples):
        top = 9.0 if sample < peaked else 0.5
        for depth in (0, 1):
            for point, call, kappa in (
                ("clean", None, 2.0), ("attack", 0, top), ("attack", 1, top / 2),
                ("adversarial", None, 1.0),
            ):  # fmt: skip
                rows.append((sample, depth, point, call, kappa / (1 + depth), 0.1))
    columns = ["sample", "depth", "point", "call", "kappa", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def test_peaks_are_counted_and_too_few_samples_are_not_judged() -> None:
    found = layers._peak(table(12, 11), 0)
    assert (found.name, found.ours, found.verdict) == ("peak-0", 11 / 12, "agrees")
    assert found.claim.endswith("in the head.")
    assert layers._peak(table(12, 1), 1).verdict == "differs"
    few = layers._peak(table(12, 6), 1)
    assert few.verdict == "not-measured"
    assert few.note.startswith("6 of 12 (95% 21% to 79%)")


def test_flatter_is_by_two_standard_errors() -> None:
    rows = table(12, 12)
    assert layers._flatter(rows, 0).ours == 1.0
    assert layers._flatter(rows.assign(standard_error=0.6), 0).ours == 0.0


def test_a_layer_follows_the_head_and_stays_below_it() -> None:
    rows = table(12, 6)
    assert layers._follows(rows, 1).ours == 1.0
    other = rows.assign(kappa=rows["kappa"].where(rows["depth"] == 0, -rows["kappa"]))
    assert layers._follows(other, 1).verdict == "differs"
    assert layers._largest(rows).verdict == "agrees"
    rows.loc[rows["depth"] == 1, "kappa"] *= 3
    found = layers._largest(rows)
    assert (found.ours, found.verdict) == (0.0, "refuted")


def test_a_run_measures_four_layers(plain_digits: Plain) -> None:
    model, (images, labels) = plain_digits
    path = walk_all(subject_of("walter-fig3", plain_digits, 40))
    fooled = (path.correct() & path.wrong()[-1]).nonzero()[:2, 0]
    result = reproduce("walter-fig14", [model], data=(images[fooled], labels[fooled]))
    assert {"follows-1", "follows-2", "largest-at-head"} <= {c.name for c in result.claims}
    assert set(result.figures["median_kappa"]["0"]) == {"clean", "attack", "adversarial"}
    assert len(result.figures["layers"]) == layers._LAYERS
