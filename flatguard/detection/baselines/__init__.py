"""Detectors of other papers, which the sharpness threshold must be compared with.

Those that one forward pass gives are in `detection.scores`; here are the others, one a file.
"""

from __future__ import annotations

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.detection.baselines.feature_squeezing import FeatureSqueezing
from flatguard.detection.baselines.lid import Lid
from flatguard.detection.baselines.mahalanobis import Mahalanobis
from flatguard.detection.baselines.odds import Odds

BASELINES: tuple[type[Baseline], ...] = (FeatureSqueezing, Lid, Mahalanobis, Odds)

__all__ = ["BASELINES", "Baseline", "TrainingImages"]
