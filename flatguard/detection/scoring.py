"""Applies a saved detector to images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flatguard.data.dataset import blocks
from flatguard.detection.detector import SharpnessDetector
from flatguard.detection.scores import measure_of
from flatguard.execution.context import ModelAndData
from flatguard.execution.progress import ProgressReporter


def score_images(context: ModelAndData, detector: Path, progress: ProgressReporter) -> pd.DataFrame:
    """A row for each image: sample, label, predicted, the score (`log_kappa`, or
    `log_logit_sharpness` without a proven head; NaN if not measured), flagged.

    Raises:
        DetectorError: the file is no detector, or a detector of another model.
    """
    loaded = SharpnessDetector.load(detector, context.target)
    column = measure_of(context.target).column
    progress.stage("scoring", context.count)
    parts = []
    for start, batch in blocks(context.dataset, context.count, context.block_size):
        seen = loaded.classify(batch.images)
        parts.append(
            pd.DataFrame(
                {
                    "sample": range(start, start + len(batch)),
                    "label": batch.labels.numpy(),
                    "predicted": seen.predicted,
                    column: seen.score,
                    "flagged": seen.flagged,
                }
            )
        )
        progress.advanced(len(batch))
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table
