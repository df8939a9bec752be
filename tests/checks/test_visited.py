"""Visited points: the rise of the loss above the clean image's, and what is wrong."""

import numpy as np
import pandas as pd

from flatguard.checks.visited import distance_column, visited_of


def test_rows_become_points() -> None:
    samples = pd.DataFrame({"sample": [3, 5], "clean_loss": [0.5, 1.0], "label": [0, 1]})
    rows = pd.DataFrame(
        {
            "sample": [3, 3, 5],
            "loss": [0.75, np.inf, 3.0],
            "prediction": [0, 1, 1],
            "l2": [0.0, 0.1, 0.2],
        }
    )
    found = visited_of(rows, samples, "l2")
    assert found.sample.tolist() == [3, 3, 5]
    assert found.rise[[0, 2]].tolist() == [0.25, 2.0]
    assert np.isnan(found.rise[1])
    assert found.wrong.tolist() == [False, True, False]
    assert found.distance.tolist() == [0.0, 0.1, 0.2]


def test_the_distance_that_fits_a_norm() -> None:
    assert [distance_column(norm) for norm in ("Linf", "L2", "L1", None)] == ["linf", *["l2"] * 3]
