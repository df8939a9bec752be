"""Determinism: the same images again, and whether the logits are the same."""

from __future__ import annotations

import pandas as pd
import torch

from flatguard.checks.gathering.lab import CONFIRM_DRAWS, Found, Lab

LOOKED_AT = 32
DRAWS = 4
RELATIVE_TOLERANCE = 1e-4
"""Parallel sums differ by 1e-6 from call to call on a GPU; a random layer by far more."""


def look_twice(lab: Lab) -> Found:
    """Call the target again on the same images and, if it is randomised, judge the audit anew.

    A randomised target is asked `CONFIRM_DRAWS` times about each audited example; whether a sample
    survived is what most draws say.

    Cost: `DRAWS` forward passes over at most `LOOKED_AT` images; `CONFIRM_DRAWS` over all
    survivors where the target is randomised.
    """
    numbers = lab.samples.loc[~lab.samples["failed"], "sample"].to_numpy()
    frames = []
    with lab.seeded("determinism"):
        for rows in lab.rows(lab.spread(numbers, LOOKED_AT)):
            logits = torch.stack([lab.logits(rows.images) for _ in range(DRAWS)])
            spread = (logits - logits[0]).abs().amax(dim=(0, 2))
            size = (logits[0] - logits[0].mean(dim=1, keepdim=True)).abs().amax(dim=1)
            flips = (logits.argmax(dim=2) != logits[0].argmax(dim=1)).any(dim=0)
            frames.append(
                pd.DataFrame(
                    {
                        "sample": rows.sample.cpu().numpy(),
                        "difference": (spread / size.clamp_min(1e-30)).double().cpu().numpy(),
                        "flips": flips.cpu().numpy(),
                    }
                )
            )
    repeated = pd.concat(frames, ignore_index=True)
    lab.randomised = bool((repeated["difference"] > RELATIVE_TOLERANCE).any())
    tables = {"repeated": repeated}
    if lab.randomised:
        tables["survival"] = _survival(lab)
    return Found({"randomised": lab.randomised, "draws": CONFIRM_DRAWS}, tables)


def _survival(lab: Lab) -> pd.DataFrame:
    frames = [pd.DataFrame({"sample": [], "wrong": []})]
    with lab.seeded("survival"):
        for rows in lab.rows(lab.survivors):
            wrong = lab.wrong(rows.adversarial, rows.labels, CONFIRM_DRAWS)
            frames.append(
                pd.DataFrame({"sample": rows.sample.cpu().numpy(), "wrong": wrong.cpu().numpy()})
            )
    table: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table
