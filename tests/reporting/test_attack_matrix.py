import numpy as np

from flatguard.reporting.attack_matrix import AttemptRow, attack_matrix
from flatguard.reporting.figure import FigureText

TEXT = FigureText("name", "title", "description")


def test_not_tried_differs_from_not_fooled() -> None:
    rows = [
        AttemptRow("one", np.array([1.0, 0.0, np.nan])),
        AttemptRow("other", np.array([np.nan, np.nan, np.nan])),
    ]
    figure = attack_matrix(TEXT, "samples", rows)
    assert figure.table is not None
    assert figure.table.rows == (("one", "2", "1"), ("other", "0", "0"))
    assert str(figure.image).count('class="cell') == 2


def test_samples_with_the_same_results_are_neighbours() -> None:
    figure = attack_matrix(TEXT, "samples", [AttemptRow("one", np.array([0.0, 1.0] * 50))])
    image = str(figure.image)
    for shade in ("shade0", "shade4"):
        assert image.count(f'class="cell {shade}"') == 1
    assert image.count("z") == 2, "one rectangle for each shade"


def test_a_column_of_many_samples_has_the_shade_of_its_share() -> None:
    fooled = np.zeros(3600)
    fooled[:3] = 1.0
    image = str(attack_matrix(TEXT, "samples", [AttemptRow("one", fooled)]).image)
    assert 'class="cell shade2"' in image, "3 of 10 samples in the first column are fooled"
