"""The options that commands share, each once: its type, its help, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
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
    float | None,
    typer.Option(
        help="The overestimate that is let pass, as a share of all samples; by default 5%, or what "
        "a run was judged with before."
    ),
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


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `EvaluationRequest` among a command's parameters, all but the data set's name.

    Args:
        given: the command's parameters by their names, such as its `locals()`.

    Raises:
        UsageError: one of them cannot be read.
    """
    from flatguard.attacks import parse_args
    from flatguard.request import EvaluationRequest

    besides = {"model", "attack", "dataset"}
    found = {n: given[n] for n in EvaluationRequest.model_fields if n in given and n not in besides}
    if "attack_arg" in given:
        found["attack_args"] = parse_args(given["attack_arg"] or [])
    for name in ("mean", "std"):
        found[name] = numbers(f"--{name}", given[name])
    if "loss" in given:
        found["losses"] = tuple(given["loss"] or ())
    return found


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
