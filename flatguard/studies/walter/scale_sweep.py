"""Figure 13: networks that cannot be attacked, because their logits were multiplied.

Each scaled network is attacked anew, and also classifies the examples of s = 1. W and b are both
scaled, so no decision moves and transfer is exact. Robust accuracy is that of the returned images
in a fresh pass, within budget and box.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from flatguard.checks.statistics import interval, mcnemar, rank_correlation
from flatguard.data.dataset import Batch
from flatguard.geometry.distance import within
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p, rise_of_log_kappa
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.targets import prepare
from flatguard.targets.head import FinalMap, inputs_of

_CLAIMS = statements("walter", "scale_sweep")
_SCALES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class _Sweep:
    """n samples at every scale.

    Attributes:
        correct: `(n,)`, correctly classified when clean.
        survives: `(scales, n)`, correct under the attack on the scaled network.
        survives_first: `(scales, n)`, correct under the examples of s = 1.
        log_kappa: `(scales, n)`, on the clean images.
    """

    correct: Tensor
    survives: Tensor
    survives_first: Tensor
    log_kappa: Tensor

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.correct)


def sweep_of(subject: Subject) -> Outcome:
    """Robust accuracy, transfer and κ against s."""
    found = _swept(subject)
    claims = (
        _accuracy(found),
        _recovers(found),
        _transfer(found),
        _flattens(found),
        _tracks(found),
    )
    return Outcome(claims, _figures(found))


def _swept(subject: Subject) -> _Sweep:
    head, context = subject.head(), subject.context
    parts: list[_Sweep] = []
    subject.progress.stage("scales", subject.count * len(_SCALES))
    for start, batch in subject.blocks():
        logits, norm = _clean(subject, batch, head)
        survives, first = [], None
        for scale in _SCALES:
            model = prepare(context.target, batch.images[:8], logit_scale=scale).model
            seed = subject.seed("attack", start)
            found = context.attack.perturb(model, batch.images, batch.labels, seed).images
            first = found if first is None else first
            correct = _correct(model, batch, first)
            survives.append((_survives(subject, batch, found), correct))
            subject.progress.advanced(len(batch))
        clean = logits.argmax(dim=1) == batch.labels
        base = log_sum_p_one_minus_p(logits) + 2.0 * norm.log() + head.log_weight_norm_squared()
        kappa = torch.stack([base + rise_of_log_kappa(logits, scale) for scale in _SCALES])
        own, by_first = (torch.stack(column) for column in zip(*survives, strict=True))
        parts.append(_Sweep(clean, own & clean, by_first & clean, kappa))
    columns = zip(*(astuple(part) for part in parts), strict=True)
    return _Sweep(*(torch.cat(values, dim=-1).cpu() for values in columns))


def _clean(subject: Subject, batch: Batch, head: FinalMap) -> tuple[Tensor, Tensor]:
    """The logits and ‖φ‖, `(n, k)` and `(n,)`."""
    with inputs_of(head) as seen, torch.no_grad():
        logits = subject.model(batch.images)
    return logits.double(), feature_norm(seen[-1])


def _survives(subject: Subject, batch: Batch, found: Tensor) -> Tensor:
    """Correct in a fresh pass of the unscaled model; an image beyond the budget does not count."""
    correct = _correct(subject.model, batch, found)
    inside = within(found.cpu(), batch.images.cpu(), subject.context.attack.budget)
    return correct | ~inside.to(correct.device)


def _correct(model: torch.nn.Module, batch: Batch, examples: Tensor) -> Tensor:
    with torch.no_grad():
        correct: Tensor = model(examples).argmax(dim=1) == batch.labels
    return correct


def _accuracy(found: _Sweep) -> Claim:
    left = int(found.survives[0].sum())
    low, _ = interval(left, found.n)
    return _CLAIMS["robust-accuracy-s1"].share(left, found.n, also=low < 0.05)


def _recovers(found: _Sweep) -> Claim:
    left, clean = int(found.survives[-1].sum()), int(found.correct.sum())
    shares = found.survives.double().mean(dim=1).tolist()
    return _CLAIMS["robust-accuracy-s100"].share(
        left,
        found.n,
        also=clean - left <= 0.05 * found.n,
        clean=clean / found.n,
        by_scale=_listed(shares, ".1%"),
        p=mcnemar(clean - left, 0),
    )


def _listed(values: list[float], form: str) -> str:
    return ", ".join(f"{s:g}: {value:{form}}" for s, value in zip(_SCALES, values, strict=True))


def _transfer(found: _Sweep) -> Claim:
    fooled = found.correct & ~found.survives[0]
    by_first = ~found.survives_first[1:, fooled]
    if not by_first.numel():
        return _CLAIMS["transfer"].not_measured()
    n = int(fooled.sum())
    return _CLAIMS["transfer"].judge(
        int(by_first.sum()) / by_first.numel(),
        interval=interval(int(by_first.all(dim=0).sum()), n),
        samples=n,
        is_share=True,
    )


def _flattens(found: _Sweep) -> Claim:
    medians = found.log_kappa.median(dim=1).values.tolist()
    return _CLAIMS["kappa-falls"].share_of(
        found.log_kappa[-1] < found.log_kappa[0], medians=_listed(medians, ".1f")
    )


def _tracks(found: _Sweep) -> Claim:
    medians = found.log_kappa.median(dim=1).values.tolist()
    rho = rank_correlation(medians, found.survives.double().mean(dim=1).tolist())
    if rho is None:
        return _CLAIMS["kappa-tracks"].not_measured()
    return _CLAIMS["kappa-tracks"].judge(rho.rho, interval=rho.interval, samples=rho.n)


def _figures(found: _Sweep) -> dict[str, Any]:
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        "scale": list(_SCALES),
        "log_kappa_quartiles": found.log_kappa.quantile(levels, dim=1).T.tolist(),
        "robust_accuracy": found.survives.double().mean(dim=1).tolist(),
        "left_by_the_examples_of_s1": found.survives_first.double().mean(dim=1).tolist(),
    }
