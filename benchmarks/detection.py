"""`make bench-detect`: every detector on real networks, attacks and radii, and who knows it.

Needs the real checkpoints; `FLATGUARD_REAL` names their folder. A trial that was interrupted goes
on where it stopped. `--draw` writes the table anew from finished trials.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.masking_zoo import networks
from flatguard.cli.progress import Watcher
from flatguard.data.arrays import ArrayDataset
from flatguard.detection.auroc import Auroc, auroc
from flatguard.detection.comparison import AttackAtRadius
from flatguard.detection.conformal import atypicality
from flatguard.detection.experiment import RESULT, SampleSizes, run_experiment
from flatguard.detection.results import AttackResult, DetectionExperiment, DetectorResult, Share
from flatguard.detection.scores import forward_pass
from flatguard.execution import context
from flatguard.execution.progress import ProgressReporter
from flatguard.request import make_request
from flatguard.runs.run import load_run
from flatguard.targets import prepare
from flatguard.targets.target import Target, make_target

TABLE = Path("docs/detection-study.md")
STUDY = Path("reports/detection-study")
REFERENCE = "torchattacks:PGD"
ATTACKS = (REFERENCE, "torchattacks:FGSM", "apgd-dlr")
RADII = ("8/255", "1/255", "2/255", "4/255", "16/255")
ARGS = {"steps": 10, "random_start": False, "alpha": 2 / 255, "n_iter": 20}
SHARPER = 100.0
"""Logits times this, for the collapse of the plain formula."""


@dataclass(frozen=True)
class Case:
    """A network and how many images it can afford here."""

    network: str
    sizes: SampleSizes
    batch: int = 100


CASES = (
    Case("resnet20", SampleSizes(500, 100, 400, 100)),
    Case("resnet56", SampleSizes(200, 80, 400, 50)),
    Case(networks.DEMO, SampleSizes(80, 50, 250, 30), batch=50),
)


def main() -> None:
    """Run the trials that are asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="networks, with commas between")
    parser.add_argument("--draw", action="store_true", help="only write the table")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    chosen = asked.only.split(",") if asked.only else [case.network for case in CASES]
    if not asked.draw:
        with Watcher() as watcher:
            for case in CASES:
                if case.network in chosen:
                    _trial(case, watcher)
    done = [c for c in CASES if (STUDY / c.network / RESULT).is_file()]
    trials = {
        c.network: DetectionExperiment.model_validate_json(
            (STUDY / c.network / RESULT).read_text("utf-8")
        )
        for c in done
    }
    TABLE.write_text("\n".join(_page(trials)) + "\n", "utf-8")
    print(TABLE)


def _trial(case: Case, watcher: ProgressReporter) -> None:
    reason = networks.missing(case.network) or networks.missing("resnet20")
    if reason:
        raise SystemExit(reason)
    network = networks.load(case.network)
    target = make_target(network.module, case.network, "the real checkpoints")
    dataset = ArrayDataset(network.images, network.labels, "CIFAR-10 test, first 1,000")
    request = make_request(
        model=case.network, attack=REFERENCE, norm="Linf", eps=RADII[0], batch_size=case.batch,
        n_examples=case.sizes.total, attack_args={k: v for k, v in ARGS.items() if k != "n_iter"},
    )  # fmt: skip
    whole = context.resolve(request, target, dataset)
    # All arguments again: each attack of the trial takes those it knows.
    whole = context.EvaluationContext(
        whole.request.model_copy(update={"attack_args": ARGS}), whole.target, whole.dataset,
        whole.device, whole.attack,
    )  # fmt: skip
    wanted = [AttackAtRadius(attack, eps) for eps in RADII for attack in ATTACKS]
    run_experiment(
        whole, wanted, case.sizes, STUDY / case.network, ["make", "bench-detect"], watcher
    )


def _page(trials: dict[str, DetectionExperiment]) -> Iterator[str]:
    yield "# The detection study"
    yield ""
    yield (
        "Written by `make bench-detect`, as it came out. What the columns mean, and what it says "
        "for practice, is in [Detection](detection.md)."
    )
    yield ""
    yield (
        "All detectors see the same images. Thresholds come from clean images that nothing else "
        "uses; AUROC is of successful examples against all clean images, two-sided where a score "
        "has no side of its own, with its 95% bootstrap interval (1,000 resamples of images); "
        "*one-sided* is of the raw score in its better direction (↓ adversarial examples score "
        "lower). *Stump* is accuracy on successful examples and their own clean images (a coin "
        "has 50%), mean and five folds; *unseen* is a stump taught by PGD-10 at 8/255 on other "
        "images. TPR is of successful examples at thresholds calibrated for 5% and 1% false "
        "positives, with exact 95% intervals; FPR is what the 5% threshold did on clean, "
        "misclassified clean, and noisy images; *failed* is how many examples it flags that fool "
        "nobody."
    )
    for name, trial in trials.items():
        yield from _network(name, trial)
    yield from _collapse()


def _network(name: str, trial: DetectionExperiment) -> Iterator[str]:
    split = trial.split
    yield ""
    yield f"## {name}"
    yield ""
    yield (
        f"{split.evaluated} images evaluated, {split.fitted} to learn from, {split.calibrated} to "
        f"calibrate, drawn from {trial.data} with seed {split.seed}."
    )
    for detector, reason in trial.missing.items():
        yield f"{detector} is missing: {reason}."
    yield ""
    yield "### Someone who knows the threshold on log κ"
    yield ""
    yield "| ε | made wrong | evades at 5% false positives | evades at 1% |"
    yield "|---|---|---|---|"
    for adaptive in trial.adaptive:
        five, one = adaptive.results
        yield (
            f"| {adaptive.eps} | {_share(five.misclassified)} | {_share(five.evaded)} | "
            f"{_share(one.evaded)} |"
        )
    yield ""
    yield "### Worst case over the attacks that do not know it"
    yield ""
    yield "Samples that fall to some attack, and every successful example of which is flagged."
    yield ""
    detectors = list(trial.worst[0].caught)
    yield "| ε | " + " | ".join(detectors) + " |"
    yield "|---|" + "---|" * len(detectors)
    for worst in trial.worst:
        cells = [_percent(worst.caught[d][0].share) for d in detectors]
        yield f"| {worst.eps}, 5% | " + " | ".join(cells) + " |"
        cells = [_percent(worst.caught[d][1].share) for d in detectors]
        yield f"| {worst.eps}, 1% | " + " | ".join(cells) + " |"
    for attack in trial.attacks:
        yield from _attack(attack)


def _attack(attack: AttackResult) -> Iterator[str]:
    yield ""
    yield f"### {attack.attack}, {attack.norm} {attack.eps}"
    yield ""
    yield (
        f"{attack.successful} examples succeed, {attack.failed} fail, {attack.clean_wrong} images "
        "are wrong when clean."
    )
    yield ""
    yield (
        "| detector | AUROC | one-sided | stump | its folds | unseen | TPR at 5% | TPR at 1% | FPR "
        "clean / wrong / noisy | failed |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, found in attack.detectors.items():
        yield _row(name, found)


def _row(name: str, found: DetectorResult) -> str:
    low, high = found.auroc_interval or (float("nan"), float("nan"))
    area = "–" if found.auroc is None else f"{found.auroc:.3f} ({low:.3f} to {high:.3f})"
    arrow = {"low": "↓", "high": "↑", None: ""}[found.direction]
    one_sided = "–" if found.auroc_one_sided is None else f"{found.auroc_one_sided:.3f} {arrow}"
    folds = " ".join(f"{100 * fold:.0f}" for fold in found.stump_folds or ()) or "–"
    five, one = found.at
    rates = " / ".join(_percent(s.share) for s in (five.clean, five.clean_wrong, five.noisy))
    return (
        f"| {name} | {area} | {one_sided} | {_percent(found.stump_accuracy)} | {folds} | "
        f"{_percent(found.stump_unseen)} | {_share(five.successful)} | {_share(one.successful)} | "
        f"{rates} | {_share(five.failed)} |"
    )


def _collapse() -> Iterator[str]:
    """The plain formula against the log-domain one on a hundredfold surer ResNet-20."""
    at = STUDY / "resnet20" / "runs" / "torchattacks-PGD-8_255"
    if networks.missing("resnet20") or not at.is_dir():
        return
    network = networks.load("resnet20")
    run = load_run(at)
    clean = torch.cat([run.clean(b.plan.index) for b in run.blocks])
    adversarial = torch.cat([run.adversarial(b.plan.index) for b in run.blocks])
    chosen = np.flatnonzero((run.samples["clean_correct"] & ~run.samples["robust"]).to_numpy())
    half = len(clean) // 2
    yield ""
    yield "## The same network, surer"
    yield ""
    yield (
        f"ResNet-20 with its logits × {SHARPER:g} in float32 makes the same decisions, and the "
        f"same images fool it. Each row is calibrated anew on {len(clean) - half} clean images "
        f"and scored on {half} others and the successful PGD-10 examples (8/255) that were made "
        "of them at scale 1. *Plain* is ‖W‖² (1 − Σp²) ‖φ‖² computed in float32; *one-sided* "
        "takes lower for adversarial."
    )
    yield ""
    yield "| logits × | log κ, two-sided | log κ, one-sided | plain κ, one-sided | plain κ is 0 |"
    yield "|---|---|---|---|---|"
    own = chosen[chosen < half]
    for scale in (1.0, SHARPER):
        plain = make_target(network.module, "resnet20", "the real checkpoints")
        target = prepare(plain, clean[:8], logit_scale=scale)
        (logs, naive), (after, naive_after) = _both(target, clean), _both(target, adversarial[own])
        found = [
            auroc(
                atypicality(logs[:half], logs[half:], side),
                atypicality(after, logs[half:], side),
                own, 0,
            )
            for side in ("two-sided", "low")
        ]  # fmt: skip
        one = auroc(-naive[:half], -naive_after, own, 0)
        zero = float((naive[:half] == 0).mean())
        cells = [
            f"{a.value:.3f} ({a.interval[0]:.3f} to {a.interval[1]:.3f})" for a in (*found, one)
        ]
        yield f"| {scale:g} | " + " | ".join(cells) + f" | {zero:.1%} of clean images |"
    yield ""
    yield from _made_sure(target, network.images, network.labels)


def _made_sure(target: Target, images: torch.Tensor, labels: torch.Tensor) -> Iterator[str]:
    """Examples that PGD-10 makes where the gradient is nearly gone."""
    from flatguard.attacks import build_attack
    from flatguard.geometry.budget import Budget

    args = {k: v for k, v in ARGS.items() if k != "n_iter"}
    attack = build_attack(REFERENCE, Budget("Linf", 8 / 255), 10, args)
    n = 200
    made = attack.perturb(target.model, images[:n], labels[:n], 0).images
    with torch.no_grad():
        right = target.model(images[:n]).argmax(dim=1) == labels[:n]
        fell = (right & (target.model(made).argmax(dim=1) != labels[:n])).numpy()
    clean, reference = _both(target, images[:n])[0], _both(target, images[n : 3 * n])[0]
    after = _both(target, made)[0][fell]
    if not len(after):
        yield f"PGD-10 on logits × {SHARPER:g} makes no successful example of {n} images."
        return
    found = auroc(
        atypicality(clean, reference, "two-sided"), atypicality(after, reference, "two-sided"),
        np.flatnonzero(fell), 0,
    )  # fmt: skip
    yield (
        f"Attacked at × {SHARPER:g} itself, PGD-10 fools it on {len(after)} of "
        f"{int(right.sum())} images; log κ, two-sided, finds those with AUROC "
        f"{_area(found)}."
    )


def _both(target: Target, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """log κ, and κ by the plain formula in float32."""
    logs, plain = [], []
    assert target.head is not None, "every network here has one"
    squared = float(target.head.module.weight.detach().square().sum())
    with torch.no_grad():
        for batch in images.split(100):
            seen = forward_pass(target, batch)
            p = seen.logits.softmax(dim=1)
            trace = (1.0 - p.square().sum(dim=1)) * seen.features.square().sum(dim=1)
            logs.append(seen.log_kappa.numpy())
            plain.append((squared * trace).numpy())
    return np.concatenate(logs), np.concatenate(plain)


def _area(found: Auroc) -> str:
    low, high = found.interval
    return f"{found.value:.3f} ({low:.3f} to {high:.3f})"


def _share(found: Share) -> str:
    if found.share is None:
        return "–"
    low, high = found.interval
    return f"{found.share:.1%} ({100 * low:.0f} to {100 * high:.0f})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
