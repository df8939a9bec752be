"""Figure 13: networks that cannot be attacked, because their logits were multiplied.

Each scaled network is attacked anew, and the examples of s = 1 are shown to it. W and b are both
scaled, so that no decision moves and transfer is exact; robust accuracy is that of the returned
images in a fresh pass, within budget and box.
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
from flatguard.targets.head import Head, inputs_of

CLAIMS = statements("walter", "scale_sweep")
SCALES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class Sweep:
    """What every scale left, `(scales, n)`, and the clean facts, `(n,)`."""

    right: Tensor
    left: Tensor
    left_by_first: Tensor
    log_kappa: Tensor

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.right)


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


def _swept(subject: Subject) -> Sweep:
    head, context = subject.head(), subject.context
    parts: list[Sweep] = []
    subject.progress.stage("scales", subject.count * len(SCALES))
    for start, batch in subject.blocks():
        logits, norm = _clean(subject, batch, head)
        left, first = [], None
        for scale in SCALES:
            model = prepare(context.target, batch.images[:8], logit_scale=scale).model
            seed = subject.seed("attack", start)
            found = context.attack.perturb(model, batch.images, batch.labels, seed).images
            first = found if first is None else first
            left.append((_survived(subject, batch, found), _shown(model, batch, first)))
            subject.progress.advanced(len(batch))
        right = logits.argmax(dim=1) == batch.labels
        base = log_sum_p_one_minus_p(logits) + 2.0 * norm.log() + head.log_weight_norm_squared()
        kappa = torch.stack([base + rise_of_log_kappa(logits, scale) for scale in SCALES])
        own, by_first = (torch.stack(column) for column in zip(*left, strict=True))
        parts.append(Sweep(right, own & right, by_first & right, kappa))
    columns = zip(*(astuple(part) for part in parts), strict=True)
    return Sweep(*(torch.cat(values, dim=-1).cpu() for values in columns))


def _clean(subject: Subject, batch: Batch, head: Head) -> tuple[Tensor, Tensor]:
    """The logits and ‖φ‖, `(n, k)` and `(n,)`."""
    with inputs_of(head) as seen, torch.no_grad():
        logits = subject.model(batch.images)
    return logits.double(), feature_norm(seen[-1])


def _survived(subject: Subject, batch: Batch, found: Tensor) -> Tensor:
    """Right in a fresh pass of the model as it is, or beyond the budget, which does not count."""
    with torch.no_grad():
        same: Tensor = subject.model(found).argmax(dim=1) == batch.labels
    inside = within(found.cpu(), batch.images.cpu(), subject.context.attack.budget)
    return same | ~inside.to(same.device)


def _shown(model: torch.nn.Module, batch: Batch, examples: Tensor) -> Tensor:
    with torch.no_grad():
        right: Tensor = model(examples).argmax(dim=1) == batch.labels
    return right


def _accuracy(found: Sweep) -> Claim:
    left = int(found.left[0].sum())
    low, _ = interval(left, found.n)
    return CLAIMS["robust-accuracy-s1"].share(left, found.n, also=low < 0.05)


def _recovers(found: Sweep) -> Claim:
    left, right = int(found.left[-1].sum()), int(found.right.sum())
    shares = found.left.double().mean(dim=1).tolist()
    return CLAIMS["robust-accuracy-s100"].share(
        left,
        found.n,
        also=right - left <= 0.05 * found.n,
        clean=right / found.n,
        by_scale=_listed(shares, ".1%"),
        p=mcnemar(right - left, 0),
    )


def _listed(values: list[float], form: str) -> str:
    return ", ".join(f"{s:g}: {value:{form}}" for s, value in zip(SCALES, values, strict=True))


def _transfer(found: Sweep) -> Claim:
    fooled = found.right & ~found.left[0]
    by_first = ~found.left_by_first[1:, fooled]
    if not by_first.numel():
        return CLAIMS["transfer"].not_measured()
    n = int(fooled.sum())
    return CLAIMS["transfer"].judge(
        int(by_first.sum()) / by_first.numel(),
        interval=interval(int(by_first.all(dim=0).sum()), n),
        samples=n,
        is_share=True,
    )


def _flattens(found: Sweep) -> Claim:
    medians = found.log_kappa.median(dim=1).values.tolist()
    return CLAIMS["kappa-falls"].share_of(
        found.log_kappa[-1] < found.log_kappa[0], medians=_listed(medians, ".1f")
    )


def _tracks(found: Sweep) -> Claim:
    medians = found.log_kappa.median(dim=1).values.tolist()
    rho = rank_correlation(medians, found.left.double().mean(dim=1).tolist())
    if rho is None:
        return CLAIMS["kappa-tracks"].not_measured()
    return CLAIMS["kappa-tracks"].judge(rho.rho, interval=rho.interval, samples=rho.n)


def _figures(found: Sweep) -> dict[str, Any]:
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        "scale": list(SCALES),
        "log_kappa_quartiles": found.log_kappa.quantile(levels, dim=1).T.tolist(),
        "robust_accuracy": found.left.double().mean(dim=1).tolist(),
        "left_by_the_examples_of_s1": found.left_by_first.double().mean(dim=1).tolist(),
    }
