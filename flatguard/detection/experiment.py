"""A detection experiment: several attacks, several detectors, on the same images.

A seed splits one data set into three parts. The attacks run on the *evaluated* part, and all rates
are measured there. Baselines that learn are fitted on the *fitted* part. Every threshold comes from
the clean images of the *calibrated* part. All detectors get the same images.
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
from flatguard.detection.adaptive import AttackEffort, adaptive_attack
from flatguard.detection.baselines import TrainingImages, departures
from flatguard.detection.comparison import AttackAtRadius, ScoredAttack, compare, worst_case
from flatguard.detection.conformal import FalsePositiveRate
from flatguard.detection.detector_set import RATES, CalibratedDetector, DetectorSet, Scores
from flatguard.detection.results import (
    AdaptiveAtRadius,
    AdaptiveAtRate,
    AttackResult,
    DetectionExperiment,
    Share,
    Split,
)
from flatguard.detection.scores import LOG_KAPPA, head_of
from flatguard.detection.thresholds import ALL, Thresholds
from flatguard.environment.caller import own_process
from flatguard.environment.randomness import seeded
from flatguard.errors import AttackError, DataError, UsageError
from flatguard.execution.context import EvaluationContext
from flatguard.execution.missing_blocks import attack_missing_blocks
from flatguard.execution.plan import plan_run
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.reopening import check_same_model, data_sha256
from flatguard.execution.resources import Resources
from flatguard.execution.software import versions
from flatguard.geometry.ball import project, random_step
from flatguard.geometry.budget import Budget, parse_eps
from flatguard.request import EvaluationRequest, derive_seed
from flatguard.runs.json_files import write_text
from flatguard.runs.naming import default_folder
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import open_storage

RESULT = "detection-trial.json"
_RUNS = "runs"


@dataclass(frozen=True)
class SampleSizes:
    """How many images each part has.

    Attributes:
        evaluated: attacked; all rates are measured on them.
        fitted: attacked; baselines are fitted on them.
        calibrated: clean, for thresholds.
        adaptive: of the evaluated images, this many are attacked adaptively; 0 for none.
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
    """The three parts, drawn from one data set without overlap; two of them are attacked."""

    attacked: Dataset
    evaluated: Batch
    fitted: Batch
    calibrated: Batch


@own_process()
def run_experiment(
    context: EvaluationContext,
    attacks: Sequence[AttackAtRadius],
    sizes: SampleSizes,
    out: Path,
    command: Sequence[str],
    progress: ProgressReporter,
) -> DetectionExperiment:
    """Attack, score, compare, and store everything under `out`.

    Finished attacks of an earlier, interrupted experiment in the same folder are reused.

    Args:
        context: resolved for the first attack, with the whole data set.
        attacks: the first is the one that baselines and stumps learn from.
        sizes: of the parts.
        out: a folder for the runs and for `detection-trial.json`.
        command: the command line, for the runs' manifests.
        progress: receives progress updates.

    Raises:
        DataError: the data set has too few images.
    """
    head_of(context.target)
    parts = draw(context.dataset, sizes, context.request.seed)
    experiment = _Experiment(context, parts, sizes, progress)
    contexts = [experiment.context_of(at) for at in attacks]  # all are checked before any runs
    runs = [experiment.run(own, out / _RUNS, command) for own in contexts]
    detectors = experiment.fit_detectors(runs[0])
    scored = experiment.score_attacks(attacks, runs, detectors)
    result = experiment.result(scored, runs[0], detectors)
    write_text(out / RESULT, result.model_dump_json(indent=2))
    return result


def draw(dataset: Dataset, sizes: SampleSizes, seed: int) -> Parts:
    """Three random parts; random, because a folder of images is sorted by class."""
    if sizes.total > len(dataset):
        raise DataError(
            f"{dataset.name} has {len(dataset)} images, but {sizes.total} are needed: "
            f"{sizes.evaluated} to evaluate (--n-examples), {sizes.fitted} to fit (--n-fit) and "
            f"{sizes.calibrated} to calibrate (--n-calibration)"
        )
    generator = np.random.default_rng(derive_seed(seed, 0, "detection split"))
    numbers = generator.permutation(len(dataset))[: sizes.total]
    attacked = sizes.evaluated + sizes.fitted
    subset = Subset(dataset, numbers.tolist(), f"{dataset.name}, drawn with seed {seed}")
    return Parts(
        Subset(dataset, numbers[:attacked].tolist(), subset.name),
        subset.block(0, sizes.evaluated),
        subset.block(sizes.evaluated, attacked),
        subset.block(attacked, sizes.total),
    )


def experiment_folder(request: EvaluationRequest) -> Path:
    """`reports/20260102-030405-demo-detect`."""
    return default_folder(request.model_copy(update={"attack": "detect"}))


@dataclass(frozen=True)
class _Experiment:
    """The steps of one experiment."""

    context: EvaluationContext
    parts: Parts
    sizes: SampleSizes
    progress: ProgressReporter

    def context_of(self, at: AttackAtRadius) -> EvaluationContext:
        """The context of one attack on the attacked part, with the arguments that it knows."""
        info, norm = find_attack(at.attack), self.context.attack.budget.norm
        if norm not in info.norms:
            raise AttackError(f"{info.name} measures {', '.join(info.norms)}, not {norm}")
        given, dataset = self.context.request, self.parts.attacked
        known = {k: v for k, v in given.attack_args.items() if k in info.parameters}
        request = given.model_copy(
            update={
                "attack": info.name, "eps": at.eps, "attack_args": known,
                "n_examples": len(dataset), "dataset": dataset.name,
            }
        )  # fmt: skip
        attack = build_attack(info.name, request.budget(), self.context.num_classes, known)
        return replace(self.context, request=request, dataset=dataset, attack=attack)

    def run(self, own: EvaluationContext, folder: Path, command: Sequence[str]) -> Run:
        """The run of one attack; an earlier run of the same request and images is continued."""
        attack = f"{own.request.attack} within {own.attack.budget}"
        name = f"{own.request.attack}-{own.request.eps}".replace("/", "_").replace(":", "-")
        path, resources = folder / name, Resources(progress=self.progress, max_failures=0)
        if path.exists():
            run = load_run(path)
            run.verify()
            if run.manifest.request != own.request or run.manifest.data.sha256 != data_sha256(own):
                raise UsageError(
                    f"{path} holds a run with another request or other images; remove it or name "
                    "another folder with --out"
                )
            check_same_model(own, run)
            self.progress.log(f"{attack}: taken from {path}")
        else:
            self.progress.log(f"{attack} on {own.count} images")
            run = plan_run(own, open_storage(path), command, self.progress)
        return run if run.complete else attack_missing_blocks(own, run, resources)

    def fit_detectors(self, run: Run) -> DetectorSet:
        """All detectors, fitted on the fitted part and calibrated on the calibrated part."""
        context, first, images = self.context, self.sizes.evaluated, self.parts.fitted.images
        count = self.sizes.fitted + self.sizes.calibrated
        self.progress.stage("fitting and calibrating detectors", count)
        seed = derive_seed(context.request.seed, 0, "detection noise")
        detectors = DetectorSet(context.target, context.block_size, seed)
        table = run.samples.iloc[first:]
        fooled = torch.tensor((table["clean_correct"] & ~table["robust"]).to_numpy())
        noisy = self.noise(images, run.request.budget(), "fitted")
        adversarial = _adversarial(run)[first:][fooled]
        detectors.fit(TrainingImages(images, self.parts.fitted.labels, noisy, adversarial))
        detectors.calibrate(detectors.score(self.parts.calibrated.images))
        self.progress.advanced(count)
        return detectors

    def noise(self, images: Tensor, budget: Budget, part: str) -> Tensor:
        """Images with random noise within the budget: uniform in Linf, else of any length."""
        if budget.eps is None:
            raise UsageError("detectors are compared within a radius; name one with --eps")
        seed = derive_seed(self.context.request.seed, 0, f"detection noise {part}")
        with seeded(seed, torch.device("cpu")):
            moved = images + random_step(images, budget.eps, budget.norm)
            return project(moved, images, budget.eps, budget.norm)

    def score_attacks(
        self, attacks: Sequence[AttackAtRadius], runs: Sequence[Run], detectors: DetectorSet
    ) -> list[ScoredAttack]:
        """Score every attack's images; the clean images once, the noisy images once a radius."""
        images, n = self.parts.evaluated.images, len(self.parts.evaluated)
        self.progress.stage("detectors on clean images", n)
        clean, noisy = detectors.score(images), {}
        found = []
        for at, run in zip(attacks, runs, strict=True):
            if at.eps not in noisy:
                self.progress.stage(f"detectors on noise {at.eps}", n)
                noisy[at.eps] = detectors.score(
                    self.noise(images, run.request.budget(), "evaluated")
                )
            self.progress.stage(f"detectors on {at.attack} {at.eps}", n)
            after = detectors.score(_adversarial(run)[:n])
            found.append(_scored(at, run.samples.iloc[:n], clean, noisy[at.eps], after))
            self.progress.advanced(n)
        return found

    def result(
        self, scored: Sequence[ScoredAttack], first: Run, detectors: DetectorSet
    ) -> DetectionExperiment:
        """Compare the detectors on every attack."""
        context, sizes, n = self.context, self.sizes, self.sizes.evaluated
        clean = detectors.score(self.parts.fitted.images)
        after = detectors.score(_adversarial(first)[n:])
        training = _scored(scored[0].at, first.samples.iloc[n:], clean, clean, after)
        seed = derive_seed(context.request.seed, 0, "detection metrics")
        results = tuple(
            AttackResult(
                attack=one.at.attack,
                norm=context.attack.budget.norm,
                eps=one.at.eps,
                clean_wrong=int((~one.clean_right).sum()),
                successful=len(one.successful),
                failed=len(one.failed),
                detectors=compare(detectors, one, training, seed),
            )
            for one in scored
        )
        return DetectionExperiment(
            model=context.target.name,
            weights_sha256=context.target.weights_sha256,
            logit_scale=context.request.logit_scale,
            data=context.dataset.name,
            data_sha256=first.manifest.data.sha256,
            split=Split(
                evaluated=sizes.evaluated,
                fitted=sizes.fitted,
                calibrated=sizes.calibrated,
                seed=context.request.seed,
            ),
            attacks=results,
            worst=worst_case(detectors, scored),
            adaptive=self.attack_adaptively(scored, detectors),
            missing=detectors.missing,
            departures=departures(),
            versions=versions(),
        )

    def attack_adaptively(
        self, scored: Sequence[ScoredAttack], detectors: DetectorSet
    ) -> tuple[AdaptiveAtRadius, ...]:
        """Attack the sharpness detector adaptively, at each radius once and at every rate."""
        if not self.sizes.adaptive:
            return ()
        norm, effort = self.context.attack.budget.norm, AttackEffort()
        right = np.flatnonzero(scored[0].clean_right)[: self.sizes.adaptive]
        return tuple(
            AdaptiveAtRadius(
                norm=norm,
                eps=eps,
                steps=effort.steps,
                starts=effort.starts,
                results=tuple(
                    self._evade(detectors.calibrated[LOG_KAPPA], eps, rate, right, effort)
                    for rate in RATES
                ),
            )
            for eps in dict.fromkeys(one.at.eps for one in scored)
        )

    def _evade(
        self,
        detector: CalibratedDetector,
        eps: str,
        rate: float,
        right: np.ndarray,
        effort: AttackEffort,
    ) -> AdaptiveAtRate:
        self.progress.stage(f"adaptive attack {eps}, {rate:.0%} false positives", len(right))
        evaded = adaptive_attack(
            self.context.target,
            Thresholds({ALL: detector.bounds[rate]}, {ALL: detector.calibration}, detector.side),
            self.parts.evaluated.images[right],
            self.parts.evaluated.labels[right],
            replace(self.context.attack.budget, eps=parse_eps(eps)),
            effort,
            derive_seed(self.context.request.seed, 0, f"adaptive {eps} {rate}"),
            self.progress,
        )
        return AdaptiveAtRate(
            asked=rate,
            misclassified=Share.of_flags(evaded.misclassified),
            evaded=Share.of_flags(evaded.evaded),
            by_way={way: int((evaded.way == way).sum()) for way in ("joint", "orthogonal")},
        )


def _scored(
    at: AttackAtRadius, table: pd.DataFrame, clean: Scores, noisy: Scores, after: Scores
) -> ScoredAttack:
    right, robust = table["clean_correct"].to_numpy(), table["robust"].to_numpy()
    return ScoredAttack(
        at=at,
        clean=clean,
        noisy=noisy,
        adversarial=after,
        clean_right=right,
        successful=np.flatnonzero(right & ~robust),
        failed=np.flatnonzero(right & robust & table["admissible"].to_numpy()),
    )


def _adversarial(run: Run) -> Tensor:
    return torch.cat([run.adversarial(block.plan.index) for block in run.blocks])
