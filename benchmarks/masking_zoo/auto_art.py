"""Auto-ART's rule for gradient masking, from its public code.

A. Talluri, *Auto-ART: Structured Literature Synthesis and Automated Adversarial Robustness
Testing*, 2026 (arXiv:2604.20704); the rule is in `auto_art/core/gradient_masking.py` of its
repository. Masked is where two of three signs are raised. The sign that it calls FOSC is the mean
ℓ2 norm of the loss's gradient at the clean images, not the stationarity that the name stands for;
what is measured here is what its code measures. Its code leaves the attacks to the caller: here
they are the audited one, and Square with few queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.masking_zoo.judges import Answer, Audited, Judge, gradient

SAMPLES = 20
QUERIES = 30
DRAWS, SIGMA = 10, 0.01
DISCREPANCY, NORM, TURNED = 0.15, 0.1, 0.1
SIGNS = 2
"""Signs that make an alarm."""


def ask(audited: Audited) -> Answer:
    """The three signs, and whether two of them are raised."""
    images, labels = audited.right(SAMPLES)
    if not len(labels):
        return Answer.none("no image is classified right")
    values = {"discrepancy": _black_box(audited, images, labels) - _white_box(audited)}
    named = ["discrepancy"] if values["discrepancy"] > DISCREPANCY else []
    clean = gradient(audited.model, images, labels)
    if clean is not None:
        values["norm"] = float(clean.flatten(1).norm(dim=1).mean())
        values["noise"] = _turned(audited, images, labels, clean)
        named += ["norm"] if values["norm"] > NORM else []
        named += ["noise"] if values["noise"] > TURNED else []
    return Answer(len(named) >= SIGNS, named, values)


def _white_box(audited: Audited) -> float:
    """The audited attack's success on the same images."""
    if audited.run is None:
        return 0.0
    samples = audited.run.samples.sort_values("sample")
    right = samples.loc[samples["clean_correct"], "robust"].head(SAMPLES)
    return float(1 - right.mean()) if len(right) else 0.0


def _black_box(audited: Audited, images: Tensor, labels: Tensor) -> float:
    from pyautoattack.square import SquareAttack

    attack = SquareAttack(
        audited.model, norm="Linf", eps=audited.eps, n_queries=QUERIES, seed=1, device=images.device
    )
    examples = attack.perturb(images, labels)
    with torch.no_grad():
        return float((audited.model(examples).argmax(dim=1) != labels).double().mean())


def _turned(audited: Audited, images: Tensor, labels: Tensor, clean: Tensor) -> float:
    """One minus the cosine between the gradients of all images with and without noise."""
    turned = []
    for _ in range(DRAWS):
        at = (images + SIGMA * torch.randn_like(images)).clamp(0, 1)
        noisy = gradient(audited.model, at, labels)
        if noisy is not None:
            turned.append(1 - float((clean * noisy).sum() / (clean.norm() * noisy.norm() + 1e-10)))
    return sum(turned) / len(turned) if turned else 0.0


JUDGE = Judge(
    "Auto-ART",
    ask,
    {
        "discrepancy": frozenset(),
        "norm": frozenset(),
        "noise": frozenset({"shattered-gradient", "rugged-loss", "stochastic"}),
    },
    "Talluri 2026 (arXiv:2604.20704) and its public code",
    SAMPLES,
)
