"""The most wrong admissible example of each image, and nothing else."""

import torch
from torch import Tensor

from flatguard.geometry.budget import Budget
from flatguard.recording.attribution import Assignment, Attribution
from flatguard.recording.mistakes import Mistakes

IMAGES = torch.full((3, 1, 2, 2), 0.5)
IMAGES[1], IMAGES[2] = 0.2, 0.8
LABELS = torch.tensor([0, 1, 0])


def assigned(rows: Tensor) -> Assignment:
    return Attribution(IMAGES, Budget("Linf", 0.1)).assign(rows)


def logits(*margins: float, labels: tuple[int, ...] = (0, 1, 0)) -> Tensor:
    """Two classes; the label's logit exceeds the other one by the margin."""
    found = torch.zeros(len(margins), 2)
    for row, (margin, label) in enumerate(zip(margins, labels, strict=False)):
        found[row, label] = margin
    return found


def kept(mistakes: Mistakes) -> dict[int, tuple[float, float]]:
    found = mistakes.of(torch.ones(3, dtype=torch.bool))
    if found is None:
        return {}
    pixels = found.images[:, 0, 0, 0].tolist()
    values = zip(pixels, found.margin.tolist(), strict=True)
    return dict(zip(found.sample.tolist(), values, strict=True))


def test_the_most_wrong_one_is_kept() -> None:
    mistakes = Mistakes(IMAGES, LABELS, Budget("Linf", 0.1))
    for shift, margins in ((0.05, (-1, 2, -0.5)), (-0.05, (-3, 1, 0)), (0.02, (-2, 3, -0.4))):
        rows = IMAGES + shift
        mistakes.add(assigned(rows), rows, logits(*margins))
        rows.zero_()  # an attack computes in place
    found = kept(mistakes)
    assert set(found) == {0, 2}
    assert torch.allclose(torch.tensor(found[0]), torch.tensor((0.45, -3.0)))
    assert torch.allclose(torch.tensor(found[2]), torch.tensor((0.85, -0.5)))
    only = mistakes.of(torch.tensor([False, True, True]))
    assert only is not None
    assert only.sample.tolist() == [2]


def test_what_is_outside_or_has_no_sample_is_not_kept() -> None:
    near, wide = Budget("Linf", 0.1), Mistakes(IMAGES, LABELS, Budget("Linf", 0.1))
    rows = IMAGES.clone()
    rows[0] += 0.11  # beyond the budget
    rows[1] = torch.nan
    rows[2] += 0.3  # outside the box, too
    wide.add(Attribution(IMAGES, near).assign(rows), rows, logits(-1, -1, -1))
    assert kept(wide) == {}
    assert wide.of(torch.ones(3, dtype=torch.bool)) is None


def test_logits_that_are_not_finite_or_tied_are_no_mistake() -> None:
    mistakes = Mistakes(IMAGES, LABELS, Budget("Linf", 0.1))
    bad = logits(-1, 0, -1)
    bad[0, 1] = torch.inf
    mistakes.add(assigned(IMAGES), IMAGES, bad)
    assert set(kept(mistakes)) == {2}


def test_several_rows_of_one_sample_and_rows_of_another_shape() -> None:
    mistakes = Mistakes(IMAGES, LABELS, Budget("Linf", 0.1))
    rows = torch.cat([IMAGES[:1] + shift for shift in (0.01, 0.02, 0.03)])
    mistakes.add(assigned(rows), rows, logits(-1, -3, -2, labels=(0, 0, 0)))
    assert torch.allclose(torch.tensor(kept(mistakes)[0]), torch.tensor((0.52, -3.0)))
    other = torch.zeros(3, 1, 4, 4)
    mistakes.add(assigned(IMAGES), other, logits(-9, -9, -9))
    assert kept(mistakes)[0][1] == -3.0


def test_other_norms_measure_the_row_itself() -> None:
    mistakes = Mistakes(IMAGES, LABELS, Budget("L1", 0.1))
    rows = IMAGES + 0.02
    rows[1] += 0.05
    mistakes.add(assigned(rows), rows, logits(-1, -1, -1))
    assert set(kept(mistakes)) == {0, 2}
