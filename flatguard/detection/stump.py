"""A decision stump on one score, cross-validated (Walter et al. 2026, D.4)."""

from __future__ import annotations

import numpy as np

from flatguard.detection.facts import Facts
from flatguard.environment.requirements import needed
from flatguard.errors import UsageError

FOLDS = 5


class Stump(Facts):
    """One threshold, fitted on clean and adversarial images.

    Attributes:
        threshold: fitted on all of them.
        low: whether lower scores are classified as adversarial.
        folds: the accuracy on each fold, of a stump that was fitted on the other four.
    """

    threshold: float
    low: bool
    folds: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean over folds."""
        return float(np.mean(self.folds))

    def predict(self, scores: np.ndarray) -> np.ndarray:
        """Which scores are classified as adversarial; NaN always is."""
        clean = scores >= self.threshold if self.low else scores <= self.threshold
        return ~clean


def fit_stump(
    scores: np.ndarray, is_adversarial: np.ndarray, groups: np.ndarray, seed: int
) -> Stump:
    """Fit a stump and cross-validate it.

    Args:
        scores: `(n,)`, finite.
        is_adversarial: `(n,)` bool.
        groups: `(n,)`; an image and its adversarial example share one, and so a fold.
        seed: of the folds.

    Raises:
        UsageError: fewer groups than folds.
    """
    with needed("scikit-learn", "detection", "a decision stump"):
        from sklearn.model_selection import StratifiedGroupKFold
    if len(np.unique(groups)) < FOLDS:
        raise UsageError(
            f"a stump in {FOLDS} folds needs {FOLDS} images or more, got {len(np.unique(groups))}"
        )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    accuracies = []
    for train, test in folds.split(scores, is_adversarial, groups):
        threshold, low = _best(scores[train], is_adversarial[train])
        stump = Stump(threshold=threshold, low=low, folds=())
        accuracies.append(float((stump.predict(scores[test]) == is_adversarial[test]).mean()))
    threshold, low = _best(scores, is_adversarial)
    return Stump(threshold=threshold, low=low, folds=tuple(accuracies))


def _best(scores: np.ndarray, is_adversarial: np.ndarray) -> tuple[float, bool]:
    """The threshold, half-way between two scores, and the side with the fewest errors."""
    with needed("scikit-learn", "detection", "a decision stump"):
        from sklearn.tree import DecisionTreeClassifier
    # On ranks: a tree casts to float32, which cannot separate the scores of a confident model.
    values, ranks = np.unique(scores, return_inverse=True)
    tree = DecisionTreeClassifier(max_depth=1, random_state=0).fit(ranks[:, None], is_adversarial)
    if tree.tree_.node_count == 1:  # no split helps: nothing is flagged
        return float(values[0]), True
    cut = int(np.floor(tree.tree_.threshold[0]))
    shares = tree.tree_.value[:, 0, :]
    low = bool(shares[1][1] > shares[2][1])
    return float(values[cut] + (values[cut + 1] - values[cut]) / 2), low
