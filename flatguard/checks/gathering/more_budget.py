"""More of everything: a longer search, and the same search in larger balls.

With a large enough radius every image can be turned into any other, so accuracy must fall to
chance; where it does not, the search was hindered, not the model robust (Carlini et al. 2019).
"""

from __future__ import annotations

import pandas as pd

from flatguard.checks.gathering.attempts import Attempt, Log, make
from flatguard.checks.gathering.lab import Found, Lab, Rows
from flatguard.checks.gathering.search import Search, search
from flatguard.checks.gathering.sights import Gradient, cross_entropy, margin_loss, plain
from flatguard.checks.gathering.twins import best_sight, by_search

SWEPT = 48
FACTORS = (2.0, 4.0, 8.0, 16.0)
"""The last ball is larger: it reaches from a grey image to every corner of the box."""

SWEEP_STEPS = 10
LONGER = 3
"""The longer searches take so many times the steps of the others."""

RESTARTS = 2


def search_longer(lab: Lab, truth: Found, steps: int) -> Found:
    """Along the best direction known, and along the margin's: more steps, and restarts.

    Cost: for each survivor up to 2 · `RESTARTS` · `steps` passes.
    """
    log = Log()
    how = Search(steps, RESTARTS, random_start=True)
    for rows in lab.rows(lab.survivors):
        best = best_sight(lab, rows, truth)
        make(lab, log, Attempt("longer", "budget", by_search(lab, best, how)), rows)
        margin = Gradient(plain(lab.model), margin_loss, lab.meter, draws=lab.draws)
        make(lab, log, Attempt("longer, margin", "budget", by_search(lab, margin, how)), rows)
        lab.said_done(len(rows))
    return log.found({"steps": how.steps, "restarts": how.restarts})


def sweep_radius(lab: Lab, truth: Found) -> Found:
    """Attack some samples in larger and larger balls, as the audit does and as best we can.

    Cost: at most `SWEPT` · 2 · 5 · `SWEEP_STEPS` passes.
    """
    right = lab.samples.loc[lab.samples["clean_correct"], "sample"].to_numpy()
    frames = []
    for rows in lab.rows(lab.spread(right, SWEPT)):
        raw = Gradient(plain(lab.model), cross_entropy, lab.meter, draws=lab.draws)
        for name, sight in (("raw", raw), ("best", best_sight(lab, rows, truth))):
            for eps in _radii(lab, rows):
                how = Search(SWEEP_STEPS, random_start=True, eps=eps)
                with lab.seeded(f"sweep {name} {eps}"):
                    fell = search(lab, sight, rows, how).fell
                frames.append(
                    pd.DataFrame(
                        {
                            "sample": rows.sample.cpu().numpy(),
                            "sight": name,
                            "eps": eps,
                            "fell": fell.cpu().numpy(),
                        }
                    )
                )
        lab.said_done(len(rows))
    tables = {"sweep": pd.concat(frames, ignore_index=True)} if frames else {}
    return Found({"steps": SWEEP_STEPS}, tables)


def _radii(lab: Lab, rows: Rows) -> list[float]:
    values = rows.images[0].numel()
    whole = {"Linf": 0.5, "L2": 0.5 * values**0.5, "L1": 0.5 * values}[lab.budget.norm]
    smaller = [factor * lab.eps for factor in FACTORS if factor * lab.eps < whole]
    return [*smaller, whole]
