"""Figure 13: networks that cannot be attacked, because their logits were multiplied.

Each scaled network is attacked anew, and the examples of s = 1 are shown to it. W and b are both
scaled, so that no decision moves and transfer is exact; robust accuracy is that of the returned
images in a fresh pass, within budget and box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatguard.checks.gathering.scales import rise_of_log_kappa
from flatguard.checks.statistics import interval, mcnemar, rank_correlation
from flatguard.data.dataset import Batch
from flatguard.geometry.distance import within
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p
from flatguard.studies.claim import Claim, agrees_if, not_measured, share
from flatguard.studies.study import Outcome, Subject
from flatguard.targets import prepare
from flatguard.targets.head import Head, inputs_of

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
        _accuracy(found, 0, "0%", "the interval's lower end is below 5%", below=0.05),
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
    return Sweep(
        torch.cat([part.right for part in parts]).cpu(),
        torch.cat([part.left for part in parts], dim=1).cpu(),
        torch.cat([part.left_by_first for part in parts], dim=1).cpu(),
        torch.cat([part.log_kappa for part in parts], dim=1).cpu(),
    )


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


def _accuracy(found: Sweep, index: int, paper: str, rule: str, below: float) -> Claim:
    left = int(found.left[index].sum())
    low, _ = interval(left, found.n)
    return share(
        left,
        found.n,
        name=f"robust-accuracy-s{SCALES[index]:g}",
        claim="The network as it is has no robustness.",
        paper=paper,
        rule=rule,
        verdict=agrees_if(low < below),
    )


def _recovers(found: Sweep) -> Claim:
    left, right = int(found.left[-1].sum()), int(found.right.sum())
    p = mcnemar(right - left, 0)
    return share(
        left,
        found.n,
        name="robust-accuracy-s100",
        claim="At s = 100 the reported robust accuracy recovers the clean accuracy.",
        paper="93%, the clean accuracy",
        rule="it is within 5 points of this model's clean accuracy",
        verdict=agrees_if(right - left <= 0.05 * found.n),
        note=f"Clean accuracy {right / found.n:.1%}; by s: "
        + ", ".join(
            f"{s:g}: {float(row.double().mean()):.1%}"
            for s, row in zip(SCALES, found.left, strict=True)
        )
        + f". McNemar p of the difference {p:.2g}.",
    )


def _transfer(found: Sweep) -> Claim:
    fell = found.right & ~found.left[0]
    shown = int((~found.left_by_first[1:, fell]).sum())
    total = (len(SCALES) - 1) * int(fell.sum())
    rule = "every example of s = 1 fools every other scale"
    name, claim = "transfer", "The examples of s = 1 fool all other scales."
    if not total:
        return not_measured(name, claim, "100%", rule, "no example was found at s = 1")
    return Claim(
        name=name,
        claim=claim,
        paper="100%",
        ours=shown / total,
        interval=interval(int((~found.left_by_first[1:, fell]).all(dim=0).sum()), int(fell.sum())),
        samples=int(fell.sum()),
        is_share=True,
        rule=rule,
        verdict=agrees_if(shown == total),
        note="The interval counts an example once, as a success if it fools all scales. The "
        "decisions are the same by construction, so that anything else would be rounding.",
    )


def _flattens(found: Sweep) -> Claim:
    medians = found.log_kappa.median(dim=1).values
    change = found.log_kappa[-1] - found.log_kappa[0]
    fell = int((change < 0).sum())
    return share(
        fell,
        found.n,
        name="kappa-falls",
        claim="Scaling up flattens: κ on clean images falls.",
        paper="no number",
        rule="κ is lower at s = 100 than at s = 1 for more than half, by the whole interval",
        verdict=agrees_if(interval(fell, found.n)[0] > 0.5),
        note="Median log κ by s: "
        + ", ".join(f"{s:g}: {float(m):.1f}" for s, m in zip(SCALES, medians, strict=True))
        + ".",
    )


def _tracks(found: Sweep) -> Claim:
    name, claim = "kappa-tracks", "κ and reported robust accuracy go together across scales."
    rule = "ρ over the scales is at most -0.8"
    medians = found.log_kappa.median(dim=1).values.tolist()
    shares = found.left.double().mean(dim=1).tolist()
    rho = rank_correlation(medians, shares)
    if rho is None:
        return not_measured(
            name, claim, "strong", rule, "the reported accuracy is the same at every scale"
        )
    return Claim(
        name=name,
        claim=claim,
        paper="strongly correlates, no number",
        ours=rho.rho,
        interval=rho.interval,
        samples=rho.n,
        rule=rule,
        verdict=agrees_if(rho.rho <= -0.8),
        note="Over seven scales of one network: scale moves both, so this is no evidence that "
        "flatness makes robust.",
    )


def _figures(found: Sweep) -> dict[str, Any]:
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        "scale": list(SCALES),
        "log_kappa_quartiles": found.log_kappa.quantile(levels, dim=1).T.tolist(),
        "robust_accuracy": found.left.double().mean(dim=1).tolist(),
        "left_by_the_examples_of_s1": found.left_by_first.double().mean(dim=1).tolist(),
    }
