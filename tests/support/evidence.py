"""Evidence as probes store it, made up: for checks, which are pure functions of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.evidence import Evidence, ProbeEvidence

COLUMNS = ["sample", "attempt", "family", "fooled", "forwards"]


def attempts(n: int, survivors: Iterable[int], fell: Mapping[str, Iterable[int]]) -> ProbeEvidence:
    """Attempts named by their family: the survivors that fell to each."""
    rows = [
        {"sample": s, "attempt": family, "family": family, "fooled": s in set(who), "forwards": 1.0}
        for family, who in fell.items()
        for s in survivors
    ]
    return ProbeEvidence({"ran": True}, {"attempts": pd.DataFrame(rows, columns=COLUMNS)})


def gradients(
    points: int,
    *,
    margin_state: str = "ok",
    loss_state: str = "ok",
    ratio: float = 0.5,
    predicted: float = 1.0,
    agrees: float = 1.0,
    drops: Mapping[str, float] | None = None,
) -> ProbeEvidence:
    """A gradient-truth probe that saw the same at all points."""
    table = pd.DataFrame(
        {
            "sample": range(points), "point": "clean", "loss_state": loss_state,
            "margin_state": margin_state, "margin_norm": 1.0 if margin_state == "ok" else 0.0,
            "loss_norm": ratio, "predicted": predicted if margin_state == "ok" else 0.0,
            "measured": predicted * agrees if margin_state == "ok" else 0.0, "moves": 1.0,
        }
    )  # fmt: skip
    named = drops or {"raw": 1.0, "tempered": 1.0}
    moved = pd.DataFrame(
        [
            {"sample": i, "point": "clean", "candidate": name, "alive": value != 0, "drop": value}
            for name, value in named.items()
            for i in range(points)
        ]
    )
    return ProbeEvidence({"ran": True}, {"gradients": table, "drops": moved})


def determinism(
    n: int,
    randomised: bool = False,
    wrong: Iterable[int] = (),
    survivors: Iterable[int] = range(60),
) -> ProbeEvidence:
    """A determinism probe; `wrong` are survivors that most draws classify wrong.

    The audited examples of all other samples are wrong in every draw.
    """
    difference = 0.5 if randomised else 0.0
    tables = {
        "repeated": pd.DataFrame(
            {"sample": range(n), "difference": difference, "flips": randomised}
        )
    }
    if randomised:
        unlucky = set(wrong) | set(range(n)) - set(survivors)
        tables["survival"] = pd.DataFrame(
            {
                "sample": range(n),
                "wrong": [1.0 if i in unlucky else 0.0 for i in range(n)],
                "clean": False,
            }
        )
    return ProbeEvidence({"ran": True, "randomised": randomised}, tables)


def evidence(
    n: int = 100,
    survivors: Iterable[int] = range(60),
    probes: Mapping[str, ProbeEvidence] | None = None,
    steps: int = 20,
    num_classes: int = 10,
) -> Evidence:
    """A run on n samples of which these survived; every path has three calls."""
    alive = set(survivors)
    robust = np.array([i in alive for i in range(n)])
    samples = pd.DataFrame(
        {
            "sample": range(n), "label": np.arange(n) % num_classes, "clean_correct": True,
            "robust": robust, "failed": False, "clean_log_kappa": np.linspace(-9, 1, n),
            "clean_loss": 0.1,
            "clean_feature_norm": 1.0, "adv_feature_norm": 1.1, "clean_confidence": 0.9,
            "adv_confidence": 0.8, "clean_prediction": np.arange(n) % num_classes,
            "adv_prediction": np.arange(n) % num_classes, "distance": 0.03,
        }
    )  # fmt: skip
    calls = [
        pd.DataFrame(
            {
                "sample": pd.array(range(n), dtype="Int32"), "call": call, "bookkeeping": False,
                "loss": 0.1 + call, "log_kappa": [-3.0, -1.0, -9.0][call], "margin": 1.0,
                "linf": 0.03, "l2": 0.3, "prediction": np.arange(n) % num_classes,
            }
        )
        for call in range(3)
    ]  # fmt: skip
    return Evidence(
        num_classes=num_classes, eps=8 / 255, norm="Linf", attack="torchattacks:PGD",
        attack_args={"steps": steps}, samples=samples, trajectory=[pd.concat(calls)],
        probes=dict(probes or {}),
    )  # fmt: skip


def judged_by(
    fell: Mapping[str, Iterable[int]] | None = None,
    survivors: Iterable[int] = range(60),
    truth: ProbeEvidence | None = None,
    repeated: ProbeEvidence | None = None,
    n: int = 100,
    **others: Any,
) -> Evidence:
    """Evidence of a whole fast level; families that are not named found nothing."""
    alive = list(survivors)
    usual: dict[str, Iterable[int]] = {
        "control": (), "temperature": (), "loss": (), "float64": (), "repeat": (),
    }  # fmt: skip
    probes = {
        "determinism": repeated or determinism(n),
        "gradient-truth": truth or gradients(16),
        "twins": attempts(n, alive, {**usual, **(fell or {})}),
    }
    return evidence(n, alive, probes, **others)
