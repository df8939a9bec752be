"""Detectors of other papers, one a file, that the sharpness threshold is compared with.

The baselines that need a single forward pass are in `detection.scores`. `departures.json` says how
each implementation here differs from its paper.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""

from __future__ import annotations

import json
from importlib.resources import files

from flatguard.detection.baselines.baseline import Baseline, TrainingImages
from flatguard.detection.baselines.feature_squeezing import FeatureSqueezing
from flatguard.detection.baselines.lid import Lid
from flatguard.detection.baselines.mahalanobis import Mahalanobis
from flatguard.detection.baselines.odds import Odds

BASELINES: tuple[type[Baseline], ...] = (FeatureSqueezing, Lid, Mahalanobis, Odds)

__all__ = ["BASELINES", "Baseline", "TrainingImages", "departures"]


def departures() -> dict[str, str]:
    """How each baseline differs from its paper, by its name."""
    text = files(__name__).joinpath("departures.json").read_text("utf-8")
    return {str(name): str(difference) for name, difference in json.loads(text).items()}
