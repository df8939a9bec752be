"""`make bench-detect`: every detector on real networks, attacks and radii, and the adaptive attack.

Needs the real checkpoints; `FLATGUARD_REAL` names their folder. An interrupted experiment is
continued. `--draw` writes the page again from finished experiments, by `detection_study.md.j2`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.masking_zoo import networks
from flatguard.cli.progress import Watcher
from flatguard.data.arrays import ArrayDataset
from flatguard.detection.auroc import auroc
from flatguard.detection.comparison import AttackAtRadius
from flatguard.detection.conformal import atypicality
from flatguard.detection.experiment import RESULT, SampleSizes, run_experiment
from flatguard.detection.results import DetectionExperiment, DetectorResult, Share
from flatguard.detection.scores import forward_pass
from flatguard.execution import context
from flatguard.execution.progress import ProgressReporter
from flatguard.request import make_request
from flatguard.runs.run import load_run
from flatguard.targets import prepare
from flatguard.targets.target import Target, make_target

PAGE = Path("docs/detection-study.md")
STUDY = Path("reports/detection-study")
REFERENCE = "torchattacks:PGD"
ATTACKS = (REFERENCE, "torchattacks:FGSM", "apgd-dlr")
RADII = ("8/255", "1/255", "2/255", "4/255", "16/255")
ARGS = {"steps": 10, "random_start": False, "alpha": 2 / 255, "n_iter": 20}
SCALE = 100.0
"""The factor on the logits at which the plain formula fails."""

ATTACKED = 200
"""Images that are attacked at this scale."""


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
    """Run the experiments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="networks, with commas between")
    parser.add_argument("--draw", action="store_true", help="only write the page")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    chosen = options.only.split(",") if options.only else [case.network for case in CASES]
    if not options.draw:
        with Watcher() as watcher:
            for case in CASES:
                if case.network in chosen:
                    _run(case, watcher)
    files = {case.network: STUDY / case.network / RESULT for case in CASES}
    experiments = {
        name: DetectionExperiment.model_validate_json(file.read_text("utf-8"))
        for name, file in files.items()
        if file.is_file()
    }
    PAGE.write_text(page(experiments, _scaled()), "utf-8")
    print(PAGE)


def _run(case: Case, watcher: ProgressReporter) -> None:
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
    # With the arguments of all attacks: each attack takes those that it knows.
    whole = replace(whole, request=whole.request.model_copy(update={"attack_args": ARGS}))
    attacks = [AttackAtRadius(attack, eps) for eps in RADII for attack in ATTACKS]
    out = STUDY / case.network
    run_experiment(whole, attacks, case.sizes, out, ["make", "bench-detect"], watcher)


def page(experiments: dict[str, DetectionExperiment], scaled: dict[str, Any] | None) -> str:
    """The page in Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown of our own numbers
    )
    environment.filters |= {
        "share": _share, "percent": _percent, "area": _area, "one_sided": _one_sided,
        "folds": _folds,
    }  # fmt: skip
    template = environment.get_template("detection_study.md.j2")
    return template.render(experiments=experiments, scaled=scaled)


def _scaled() -> dict[str, Any] | None:
    """The plain formula and the log-domain one, on ResNet-20 with scaled logits."""
    folder = STUDY / "resnet20" / "runs" / "torchattacks-PGD-8_255"
    if networks.missing("resnet20") or not folder.is_dir():
        return None
    network = networks.load("resnet20")
    run = load_run(folder)
    clean = torch.cat([c for b in run.blocks if (c := run.clean(b.plan.index)) is not None])
    adversarial = torch.cat([run.adversarial(b.plan.index) for b in run.blocks])
    fooled = np.flatnonzero((run.samples["clean_correct"] & ~run.samples["robust"]).to_numpy())
    half, rows = len(clean) // 2, []
    own = fooled[fooled < half]
    for scale in (1.0, SCALE):
        plain = make_target(network.module, "resnet20", "the real checkpoints")
        target = prepare(plain, clean[:8], logit_scale=scale)
        (logs, naive), (after, naive_after) = _both(target, clean), _both(target, adversarial[own])
        areas = [
            auroc(
                atypicality(logs[:half], logs[half:], side),
                atypicality(after, logs[half:], side),
                own, 0,
            )
            for side in ("two-sided", "low")
        ]  # fmt: skip
        areas.append(auroc(-naive[:half], -naive_after, own, 0))
        zero = float((naive[:half] == 0).mean())
        rows.append({"scale": f"{scale:g}", "areas": areas, "zero": zero})
    return {
        "factor": f"{SCALE:g}",
        "calibrated": len(clean) - half,
        "evaluated": half,
        "rows": rows,
        "attacked": ATTACKED,
    } | _attacked_when_scaled(target, network.images, network.labels)


def _attacked_when_scaled(
    target: Target, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Any]:
    """PGD-10 on the scaled network itself, where the gradient nearly vanishes."""
    from flatguard.attacks import build_attack
    from flatguard.geometry.budget import Budget

    args = {k: v for k, v in ARGS.items() if k != "n_iter"}
    attack = build_attack(REFERENCE, Budget("Linf", 8 / 255), 10, args)
    n = ATTACKED
    adversarial = attack.perturb(target.model, images[:n], labels[:n], 0).images
    with torch.no_grad():
        right = target.model(images[:n]).argmax(dim=1) == labels[:n]
        fooled = (right & (target.model(adversarial).argmax(dim=1) != labels[:n])).numpy()
    clean, reference = _both(target, images[:n])[0], _both(target, images[n : 3 * n])[0]
    after = _both(target, adversarial)[0][fooled]
    found = None
    if len(after):
        found = auroc(
            atypicality(clean, reference, "two-sided"),
            atypicality(after, reference, "two-sided"), np.flatnonzero(fooled), 0,
        )  # fmt: skip
    return {"own": found, "fooled": len(after), "right": int(right.sum())}


def _both(target: Target, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """log κ, and κ by the plain formula in float32."""
    logs, plain = [], []
    assert target.head is not None, "every network here has one"
    squared = float(target.head.weight.detach().square().sum())
    with torch.no_grad():
        for batch in images.split(100):
            seen = forward_pass(target, batch)
            p = seen.logits.softmax(dim=1)
            trace = (1.0 - p.square().sum(dim=1)) * seen.features.square().sum(dim=1)
            logs.append(seen.log_kappa.numpy())
            plain.append((squared * trace).numpy())
    return np.concatenate(logs), np.concatenate(plain)


def _area(found: tuple[float | None, tuple[float, float] | None]) -> str:
    value, interval = found
    if value is None or interval is None:
        return "–"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _one_sided(found: DetectorResult) -> str:
    if found.auroc_one_sided is None:
        return "–"
    return f"{found.auroc_one_sided:.3f} {'↓' if found.direction == 'low' else '↑'}"


def _folds(found: DetectorResult) -> str:
    return " ".join(f"{100 * fold:.0f}" for fold in found.stump_folds or ()) or "–"


def _share(found: Share) -> str:
    if found.share is None:
        return "–"
    low, high = found.interval
    return f"{found.share:.1%} ({100 * low:.0f} to {100 * high:.0f})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
