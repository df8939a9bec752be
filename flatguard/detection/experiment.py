"""A trial of detectors: attacks on images that nothing learnt from, and who notices them.

One data set is drawn into three parts by a seed. On the *evaluated* part the attacks are run and
all rates are measured; baselines that learn do so on the *fitted* part; every threshold comes from
the clean images of the *calibrated* part. What every detector is shown is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.attacks import build_attack, find_attack
from flatguard.data.dataset import Batch, Dataset, Subset
from flatguard.detection.adaptive import Effort, adaptive_attack
from flatguard.detection.baselines import BASELINES, TrainingImages
from flatguard.detection.comparison import Group, compare, share_of, worst_case
from flatguard.detection.conformal import FalsePositiveRate
from flatguard.detection.detector_set import RATES, DetectorSet, Scores
from flatguard.detection.results import (
    Adaptive,
    AdaptiveResult,
    AttackResult,
    DetectionExperiment,
    Split,
)
from flatguard.detection.scores import LOG_KAPPA, head_of
from flatguard.detection.thresholds import conformal
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.errors import AttackError, DataError, UsageError
from flatguard.execution.context import EvaluationContext, data_sha256
from flatguard.execution.missing_blocks import attack_missing_blocks
from flatguard.execution.plan import plan_run
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.resources import Resources
from flatguard.execution.software import versions
from flatguard.geometry.ball import project, random_step
from flatguard.geometry.budget import parse_eps
from flatguard.request import EvaluationRequest, derive_seed
from flatguard.runs.json_files import write_text
from flatguard.runs.naming import default_folder
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import open_storage
from flatguard.targets.target import model_errors

RUNS, RESULT = "runs", "detection-trial.json"


@dataclass(frozen=True)
class SampleSizes:
    """How many images each part has.

    Attributes:
        evaluated: attacked, and judged on.
        fitted: attacked, and learnt from by baselines.
        calibrated: clean, for thresholds.
        adaptive: of the evaluated, so many are attacked by someone who knows the detector; 0
            measures nothing.
    """

    evaluated: int = 500
    fitted: int = 100
    calibrated: int = 400
    adaptive: int = 100

    def __post_init__(self) -> None:
        for name, least in (("evaluated", 5), ("fitted", 1), ("adaptive", 0)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"expected at least {least} images {name}, got {getattr(self, name)}"
                )
        needed = FalsePositiveRate(min(RATES)).min_samples()
        if self.calibrated < needed:
            raise UsageError(
                f"--n-calibration: {self.calibrated} clean images are too few for "
                f"{min(RATES):g} false positives, two-sided: {needed} are needed"
            )

    @property
    def total(self) -> int:
        """Images that are drawn from the data set."""
        return self.evaluated + self.fitted + self.calibrated


@dataclass(frozen=True)
class Parts:
    """The three parts, drawn from one data set without overlap."""

    attacked: Dataset
    evaluated: Batch
    fitted: Batch
    calibrated: Batch


@dataclass(frozen=True)
class AttackAtRadius:
    """An attack at a radius, as typed."""

    attack: str
    eps: str


@own_state()
def run_experiment(
    context: EvaluationContext,
    wanted: Sequence[AttackAtRadius],
    sizes: SampleSizes,
    out: Path,
    command: Sequence[str],
    progress: ProgressReporter,
) -> DetectionExperiment:
    """Attack, score, compare, and keep everything under `out`.

    Finished attacks of an earlier, interrupted trial in the same folder are taken as they are.

    Args:
        context: resolved for the first attack; its data set is drawn from.
        wanted: attacks at radii; the first is the one that baselines and stumps learn from.
        sizes: of the parts.
        out: a folder; the runs are below it, and `detection-trial.json`.
        command: what was typed.
        progress: receives progress updates.

    Raises:
        DataError: the data set has too few images.
    """
    head_of(context.target)
    parts = draw(context.dataset, sizes, context.request.seed)
    jobs = [_job_of(context, one, parts.attacked) for one in wanted]  # all, before any is run
    runs = [_attacked(own, out, command, progress) for own in jobs]
    panel = _panel(context, runs[0], parts, sizes, progress)
    groups = _groups(context, wanted, runs, parts, panel, progress)
    taught = _teaching(runs[0], parts, panel)
    seed = derive_seed(context.request.seed, 0, "detection metrics")
    trial = DetectionExperiment(
        model=context.target.name,
        weights_sha256=context.target.weights_sha256,
        logit_scale=context.request.logit_scale,
        data=context.dataset.name,
        data_sha256=runs[0].manifest.data.sha256,
        split=Split(
            evaluated=sizes.evaluated,
            fitted=sizes.fitted,
            calibrated=sizes.calibrated,
            seed=context.request.seed,
        ),
        attacks=tuple(
            AttackResult(
                attack=one.attack,
                norm=group.budget.norm,
                eps=one.eps,
                clean_wrong=int((~group.clean_right).sum()),
                successful=len(group.successful),
                failed=len(group.failed),
                detectors=compare(panel, group, taught, seed),
            )
            for one, group in zip(wanted, groups, strict=True)
        ),
        worst=worst_case(panel, wanted, groups),
        adaptive=_adaptive(context, wanted, parts, panel, sizes, progress)
        if sizes.adaptive
        else (),
        missing=panel.missing,
        departures={kind.name: kind.departs for kind in BASELINES if kind.departs},
        versions=versions(),
    )
    write_text(out / RESULT, trial.model_dump_json(indent=2))
    return trial


def draw(dataset: Dataset, sizes: SampleSizes, seed: int) -> Parts:
    """Three parts at random, because a folder of images is sorted by class."""
    if sizes.total > len(dataset):
        raise DataError(
            f"{dataset.name} has {len(dataset)} images, but {sizes.total} are needed: "
            f"{sizes.evaluated} to evaluate (--n-examples), {sizes.fitted} to fit (--n-fit) and "
            f"{sizes.calibrated} to calibrate (--n-calibration)"
        )
    chosen = np.random.default_rng(derive_seed(seed, 0, "detection split"))
    numbers = chosen.permutation(len(dataset))[: sizes.total]
    attacked = sizes.evaluated + sizes.fitted
    subset = Subset(dataset, numbers.tolist(), f"{dataset.name}, drawn with seed {seed}")
    return Parts(
        Subset(dataset, numbers[:attacked].tolist(), subset.name),
        subset.block(0, sizes.evaluated),
        subset.block(sizes.evaluated, attacked),
        subset.block(attacked, sizes.total),
    )


def _attacked(
    own: EvaluationContext, out: Path, command: Sequence[str], progress: ProgressReporter
) -> Run:
    """The run of one attack; an earlier one of the same request and images is gone on with."""
    what = f"{own.request.attack} within {own.attack.budget}"
    name = f"{own.request.attack}-{own.request.eps}".replace("/", "_").replace(":", "-")
    path, resources = out / RUNS / name, Resources(progress=progress)
    if path.exists():
        run = load_run(path)
        run.verify()
        if run.manifest.request != own.request or run.manifest.data.sha256 != data_sha256(own):
            raise UsageError(
                f"{path} holds a run of something else; remove it or name another folder with --out"
            )
        progress.log(f"{what}: taken from {path}")
    else:
        progress.log(f"{what} on {own.count} images")
        run = plan_run(own, open_storage(path), command, progress)
    return run if run.complete else attack_missing_blocks(own, run, resources)


def _job_of(
    context: EvaluationContext, one: AttackAtRadius, attacked: Dataset
) -> EvaluationContext:
    info, norm = find_attack(one.attack), context.attack.budget.norm
    if norm not in info.norms:
        raise AttackError(f"{info.name} measures {', '.join(info.norms)}, not {norm}")
    known = {k: v for k, v in context.request.attack_args.items() if k in info.parameters}
    request = context.request.model_copy(
        update={
            "attack": info.name, "eps": one.eps, "attack_args": known,
            "n_examples": len(attacked), "dataset": attacked.name,
        }
    )  # fmt: skip
    attack = build_attack(info.name, request.budget(), context.num_classes, known)
    return replace(context, request=request, dataset=attacked, attack=attack).not_judged()


def _panel(
    context: EvaluationContext,
    run: Run,
    parts: Parts,
    sizes: SampleSizes,
    progress: ProgressReporter,
) -> DetectorSet:
    """All detectors, fitted on the fitted part and calibrated on the calibrated one."""
    progress.stage("fitting and calibrating detectors", sizes.fitted + sizes.calibrated)
    panel = DetectorSet(
        context.target, context.block_size, derive_seed(context.request.seed, 0, "detection noise")
    )
    table, images = run.samples.iloc[sizes.evaluated :], _adversarial(run)[sizes.evaluated :]
    fell = torch.tensor((table["clean_correct"] & ~table["robust"]).to_numpy())
    noisy = noise(parts.fitted.images, run.request.budget().eps, context, "fitted")
    panel.fit(TrainingImages(parts.fitted.images, parts.fitted.labels, noisy, images[fell]))
    panel.calibrate(panel.score(parts.calibrated.images))
    progress.advanced(sizes.fitted + sizes.calibrated)
    return panel


def noise(images: Tensor, eps: float | None, context: EvaluationContext, part: str) -> Tensor:
    """Random noise that the attack's budget would allow: uniform in Linf; else of any length."""
    if eps is None:
        raise UsageError("detectors are compared within a radius; name one with --eps")
    norm = context.attack.budget.norm
    with seeded(
        derive_seed(context.request.seed, 0, f"detection noise {part}"), torch.device("cpu")
    ):
        return project(images + random_step(images, eps, norm), images, eps, norm)


def _groups(
    context: EvaluationContext,
    wanted: Sequence[AttackAtRadius],
    runs: Sequence[Run],
    parts: Parts,
    panel: DetectorSet,
    progress: ProgressReporter,
) -> list[Group]:
    """Every attack's images, scored; the clean ones once, and noise once a radius."""
    images, n = parts.evaluated.images, len(parts.evaluated)
    progress.stage("detectors on clean images", n)
    clean, noisy = panel.score(images), {}
    found = []
    for one, run in zip(wanted, runs, strict=True):
        if one.eps not in noisy:
            progress.stage(f"detectors on noise {one.eps}", n)
            noisy[one.eps] = panel.score(noise(images, parse_eps(one.eps), context, "evaluated"))
        progress.stage(f"detectors on {one.attack} {one.eps}", n)
        table, after = run.samples.iloc[:n], panel.score(_adversarial(run)[:n])
        found.append(_group(run, table, clean, noisy[one.eps], after))
        progress.advanced(n)
    return found


def _group(run: Run, table: pd.DataFrame, clean: Scores, noisy: Scores, after: Scores) -> Group:
    right, robust = table["clean_correct"].to_numpy(), table["robust"].to_numpy()
    return Group(
        budget=run.request.budget(),
        clean=clean,
        noisy=noisy,
        adversarial=after,
        clean_right=right,
        successful=np.flatnonzero(right & ~robust),
        failed=np.flatnonzero(right & robust & table["admissible"].to_numpy()),
    )


def _teaching(run: Run, parts: Parts, panel: DetectorSet) -> Group:
    """The fitted part under the first attack: what stumps are taught with."""
    first = len(parts.evaluated)
    clean, after = panel.score(parts.fitted.images), panel.score(_adversarial(run)[first:])
    return _group(run, run.samples.iloc[first:], clean, clean, after)


def _adversarial(run: Run) -> Tensor:
    return torch.cat([run.adversarial(block.plan.index) for block in run.blocks])


def _adaptive(
    context: EvaluationContext,
    wanted: Sequence[AttackAtRadius],
    parts: Parts,
    panel: DetectorSet,
    sizes: SampleSizes,
    progress: ProgressReporter,
) -> tuple[Adaptive, ...]:
    """Each radius once: someone who knows the sharpness detector, at every rate."""
    detector, effort = panel.detectors[LOG_KAPPA], Effort()
    images, labels = parts.evaluated.images, parts.evaluated.labels
    with (
        torch.no_grad(),
        model_errors(context.target.name, f"on {context.block_size} images at once"),
    ):
        batches = (part.to(context.device) for part in images.split(context.block_size))
        found = [context.target.model(part).argmax(dim=1).cpu() for part in batches]
    right = (torch.cat(found) == labels).nonzero()[: sizes.adaptive, 0]
    done = []
    for eps in dict.fromkeys(one.eps for one in wanted):
        results = []
        for asked in RATES:
            progress.stage(f"adaptive attack {eps}, {asked:.0%} false positives", len(right))
            thresholds = conformal(
                detector.calibration,
                np.zeros(len(detector.calibration), int),
                FalsePositiveRate(asked),
            )
            budget = replace(context.attack.budget, eps=parse_eps(eps))
            seed = derive_seed(context.request.seed, 0, f"adaptive {eps} {asked}")
            evaded = adaptive_attack(
                context.target, thresholds, images[right], labels[right], budget, effort, seed,
                progress,
            )  # fmt: skip
            results.append(
                AdaptiveResult(
                    asked=asked,
                    misclassified=share_of(evaded.misclassified),
                    evaded=share_of(evaded.evaded),
                    by_way={way: int((evaded.way == way).sum()) for way in ("joint", "orthogonal")},
                )
            )
        done.append(
            Adaptive(
                norm=context.attack.budget.norm,
                eps=eps,
                steps=effort.steps,
                starts=effort.starts,
                results=tuple(results),
            )
        )
    return tuple(done)


def experiment_folder(request: EvaluationRequest) -> Path:
    """`reports/20260102-030405-demo-detect`."""
    return default_folder(request.model_copy(update={"attack": "detect"}))
