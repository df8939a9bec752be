"""`flatguard evaluate`: attack a model, record it, and say what is left of its accuracy."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flatguard.errors import UsageError

ConfigName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_PATH",
        help="A YAML file, or a name that `flatguard configs` lists; other options override it.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="demo; a RobustBench entry or a prefix of one; timm:NAME; torchvision:NAME; or the "
        "path of a .safetensors, .pt, .pth or .pt2 file."
    ),
]
Attack = Annotated[
    str | None, typer.Option(help="apgd-ce, standard, torchattacks:PGD, foolbox:LinfPGD, ...")
]
AttackArg = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="An argument of the attack; may be repeated."),
]
Norm = Annotated[str | None, typer.Option(help="Linf, L2, L1, L0 or none.")]
Eps = Annotated[str | None, typer.Option(help="The radius for images in [0, 1]: 8/255.")]
DatasetName = Annotated[
    str | None,
    typer.Option(
        help="demo, cifar10, cifar100, imagenet; a .npz or .pt; images.npy,labels.npy; or a "
        "folder with a subfolder a class."
    ),
]
DataDir = Annotated[Path, typer.Option(help="Where CIFAR and ImageNet are.")]
Preprocessing = Annotated[
    str | None, typer.Option(help="RobustBench's name for it: Res256Crop224, Crop288, ...")
]
Count = Annotated[int | None, typer.Option(help="The first so many; by default at most 1000.")]
ThreatModel = Annotated[
    str | None, typer.Option(help="RobustBench's table: Linf, L2, corruptions, corruptions_3d.")
]
ModelDir = Annotated[Path, typer.Option(help="RobustBench's checkpoints.")]
Arch = Annotated[
    str | None, typer.Option(help="module:factory or file.py:factory for a file of weights.")
]
Mean = Annotated[str | None, typer.Option(help="Per channel, inside the model: .485,.456,.406")]
Std = Annotated[str | None, typer.Option(help="Per channel, inside the model: .229,.224,.225")]
HeadName = Annotated[str | None, typer.Option(help="The name of the final linear layer.")]
LogitScale = Annotated[
    float, typer.Option(help="Multiply W and b of the head: the same decisions, surer.")
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run the code that files hold or name.")
]
Out = Annotated[
    str | None,
    typer.Option(help="The run folder, or s3://bucket/run; by default a new one in reports/."),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Samples attacked together; part of the run's identity.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the best.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Gradients = Annotated[
    bool, typer.Option("--gradients", help="Also record input gradients: norm, exact zeros.")
]
Checks = Annotated[
    str, typer.Option(help="What is spent on the verdict: none, fast, standard or full.")
]
Surrogate = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="Also show it this model's adversarial examples."),
]
Tolerance = Annotated[
    float, typer.Option(help="The overestimate that is let pass, as a share of all samples.")
]
MaxForwards = Annotated[
    int | None,
    typer.Option(help="Images that attack and checks may send forward; then inconclusive."),
]
MaxMinutes = Annotated[
    float | None, typer.Option(help="Minutes that all of it may take; then inconclusive.")
]
Detector = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also flag samples with a detector that flatguard detect fit wrote for this model.",
    ),
]
Loss = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Also measure focal, focal:GAMMA, brier or kl:ALPHA; may be repeated.",
    ),
]
Layers = Annotated[
    int | None,
    typer.Option(help="Also estimate the sharpness of the last so many layers before the head."),
]
LayerSamples = Annotated[int, typer.Option(help="For the first so many samples.")]
MaxFailures = Annotated[
    int | None,
    typer.Option(help="Samples on which the model may fail; by default one in a hundred."),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Of each worker; by default as torch has it, or a share of the cores."),
]
Workers = Annotated[
    int | None, typer.Option(help="Attack in so many processes; the result is the same.")
]
ExecutorName = Annotated[str, typer.Option("--executor", help="processes, or ray for a cluster.")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster; auto finds it.")]
ShardText = Annotated[
    str | None, typer.Option(metavar="I/N", help="Attack only the I-th of N parts; then merge.")
]
Resume = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="Do what this run lacks; everything else is in its folder."),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the answer.")]


def command(
    ctx: typer.Context,
    config: ConfigName = None,
    model: Model = None,
    attack: Attack = None,
    attack_arg: AttackArg = None,
    norm: Norm = None,
    eps: Eps = None,
    dataset: DatasetName = None,
    data_dir: DataDir = Path("data"),
    preprocessing: Preprocessing = None,
    n_examples: Count = None,
    threat_model: ThreatModel = None,
    model_dir: ModelDir = Path("models"),
    arch: Arch = None,
    mean: Mean = None,
    std: Std = None,
    head: HeadName = None,
    logit_scale: LogitScale = 1.0,
    allow_code: AllowCode = False,
    out: Out = None,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = 0,
    gradients: Gradients = False,
    checks: Checks = "fast",
    surrogate: Surrogate = None,
    tolerance: Tolerance = 0.05,
    max_forwards: MaxForwards = None,
    max_minutes: MaxMinutes = None,
    detector: Detector = None,
    loss: Loss = None,
    layers: Layers = None,
    layer_samples: LayerSamples = 4,
    max_failures: MaxFailures = None,
    threads: Threads = None,
    workers: Workers = None,
    executor: ExecutorName = "processes",
    address: Address = None,
    shard: ShardText = None,
    resume: Resume = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack a model, record the geometry of every call, and say what the number is worth.

    Robust accuracy counts the samples that are right when clean and still right under the
    attack, over all samples; it is measured again on the returned examples, within budget. The
    verdict says whether the number can be believed.

    Exit code 0: it may be believed; 1: masked, or overestimated beyond the tolerance; 3:
    inconclusive. Where the config has thresholds, they decide; with --json they are under `gate`.
    Where a budget is spent before the first block of samples, there is no run: stdout stays empty,
    stderr says so in one line, and the exit code is 3. A shard is not judged: exit code 0.
    """
    from flatguard.attacks import parse_args
    from flatguard.cli.gated import Chosen, conclude, configured, gate_facts
    from flatguard.cli.progress import Watcher
    from flatguard.cli.resumed import check_alone, say_shard
    from flatguard.evaluation import evaluate
    from flatguard.evaluation import resume as take_up
    from flatguard.executors import choose
    from flatguard.gate.config import Config
    from flatguard.masking.verdict import verdict_of

    fields: dict[str, Any] = {
        "model": model,
        "attack": attack,
        "data": dataset,
        "attack_args": parse_args(attack_arg or []),
        "norm": norm,
        "eps": eps,
        "data_dir": data_dir,
        "preprocessing": preprocessing,
        "n_examples": n_examples,
        "threat_model": threat_model,
        "model_dir": model_dir,
        "arch": arch,
        "mean": numbers("--mean", mean),
        "std": numbers("--std", std),
        "head": head,
        "logit_scale": logit_scale,
        "allow_code": allow_code,
        "batch_size": batch_size,
        "device": device,
        "seed": seed,
        "gradients": gradients,
        "checks": checks,
        "surrogates": surrogate or (),
        "tolerance": tolerance,
        "max_forwards": max_forwards,
        "max_minutes": max_minutes,
        "detector": detector,
        "losses": tuple(loss or ()),
        "layers": layers,
        "layer_samples": layer_samples,
        "threads": threads,
    }
    how: dict[str, Any] = {
        "max_failures": max_failures,
        "executor": choose(executor, workers, address),
        "shard": shard,
    }
    if resume is not None:
        check_alone(ctx)
        chosen = Chosen(resume, {}, Config())
    else:
        chosen = configured(ctx, config, fields)
    # What a user's model or architecture prints must not stand before the one JSON object.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with aside, Watcher(quiet=quiet, to_stderr=as_json) as watcher:
        if resume is not None:
            run = take_up(resume, detector=detector, allow_code=allow_code, observer=watcher, **how)
        else:
            run = evaluate(**chosen.fields, **how, out=out, observer=watcher, command=sys.argv)
    if shard is not None:
        say_shard(run, shard)
        raise typer.Exit(0)
    verdict = verdict_of(run)
    if as_json:
        typer.echo(json.dumps({**run.summary, **gate_facts(run, verdict, chosen)}))
    else:
        from flatguard.cli.answer import show

        show(run, verdict)
    raise typer.Exit(conclude(run, verdict, chosen, quiet=as_json))


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers parted by commas, or one line that names the option."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option}: expected numbers such as .485,.456,.406, got {text!r}"
        ) from None
