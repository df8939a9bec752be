"""Studies on small networks, and rows of checkpoints whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor, nn

from flatguard.cli.app import main
from flatguard.evaluation import resolve
from flatguard.execution.progress import Silent
from flatguard.studies import find_study
from flatguard.studies.claim import Claim
from flatguard.studies.result import Result
from flatguard.studies.study import Subject
from flatguard.studies.stutz.checkpoint import Checkpoint

Plain = tuple[nn.Module, tuple[Tensor, Tensor]]

MEASURED_SHORTLY = [
    "--norm", "Linf", "--eps", "0.1", "--n-examples", "30", "--attack", "apgd-ce", "--attack-arg",
    "n_restarts=1", "--attack-arg", "n_iter=10", "--steps", "3", "--restarts", "1",
    "--directions", "2", "--worst-restarts", "1", "--batch-size", "30", "--device", "cpu",
]  # fmt: skip


def claim_of(result: Result, name: str) -> Claim:
    return next(found for found in result.claims if found.name == name)


def verdicts(claims: Sequence[Claim]) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in claims}


def subject_of(name: str, plain: Plain, count: int, batch_size: int | None = None) -> Subject:
    """A study's subject: a network and its data."""
    study, (model, data) = find_study(name), plain
    protocol = study.protocol
    context = resolve(
        model, protocol.attack, data=data, norm=protocol.norm, eps=protocol.eps,
        attack_args=protocol.args, n_examples=count, batch_size=batch_size,
    )  # fmt: skip
    return Subject(study, (context,), Silent())


def robust_flatness(folder: Path, *more: str, out: str = "out") -> int:
    """The command on the folder of the fixture `checkpoints`; its exit code."""
    files = sorted(map(str, (folder / "at-s0").glob("*.safetensors")))
    data = ["--dataset", "test", "--training", "seen", "--held-out", "held"]
    data = [str(folder / f"{part}.npz") if i % 2 else part for i, part in enumerate(data)]
    with pytest.raises(SystemExit) as caught:
        main([
            "geometry", "robust-flatness", *files, *data, "--arch", "support.digits:digits_net",
            "--out", str(folder / out), *MEASURED_SHORTLY, *more,
        ])  # fmt: skip
    return int(caught.value.code or 0)


def checkpoint(run: str, epoch: int | None = 80, **values: float) -> Checkpoint:
    basic = {"clean_error": 0.1, "rerr": 0.4, "rerr_interval": (0.3, 0.5)}
    return Checkpoint(
        folder=run, run=run, epoch=epoch, weights_sha256="", samples=200, attack="standard",
        protocol="PGD-20 with 10 restarts", **{**basic, **values},
    )  # fmt: skip
