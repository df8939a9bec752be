"""One network: AutoAttack standard, and flatguard's checks after PGD-20, on the same images."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import flatguard
from benchmarks.autoattack_parity.networks import Case
from benchmarks.masking_zoo.networks import Network
from flatguard.checks.evidence import Evidence

SEED = 20
BATCH = 100


@dataclass(frozen=True)
class Attacked:
    """What AutoAttack standard leaves.

    Attributes:
        right: the samples that stay right, of the first `count`.
        forwards: rows that went forward.
        seconds: that it took.
    """

    right: list[int]
    forwards: int
    seconds: float


@dataclass(frozen=True)
class Checked:
    """What the checks leave after an audited PGD-20.

    Attributes:
        clean, reported, right: the samples that are right clean, after PGD-20 and after the checks.
        forwards: rows that went forward in the checks.
        verdict: in words.
        mechanism: of the verdict.
        seconds: that the checks took, with the attack.
    """

    clean: int
    reported: int
    right: list[int]
    forwards: int
    verdict: str
    mechanism: str | None
    seconds: float


def by_autoattack(case: Case) -> Attacked:
    """AutoAttack standard, called directly."""
    from pyautoattack import AutoAttack

    network, images, labels = _loaded(case)
    counted = _Counted(network.module)
    began = time.perf_counter()
    attack = AutoAttack(counted, norm="Linf", eps=network.eps, seed=SEED, version="standard")
    attack.verbose = False
    found = attack.run_standard_evaluation(images, labels, batch_size=BATCH)
    examples = found[0] if isinstance(found, tuple) else found
    if (examples - images).abs().max() > network.eps + 1e-6:
        raise AssertionError("AutoAttack left the budget")
    with torch.no_grad():
        right = network.module(examples).argmax(dim=1) == labels
    seconds = time.perf_counter() - began
    return Attacked(right.nonzero()[:, 0].tolist(), counted.rows, round(seconds, 1))


def by_checks(case: Case, checks: str) -> Checked:
    """flatguard's checks after PGD-20 from the clean image."""
    network, images, labels = _loaded(case)
    args = {"steps": 20, "alpha": network.eps / 4, "random_start": False}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = flatguard.evaluate(
            network.module,
            "torchattacks:PGD",
            data=(images, labels),
            norm="Linf",
            eps=network.eps,
            attack_args=args,
            n_examples=len(labels),
            batch_size=BATCH,
            out=Path(folder) / "run",
            checks=checks,
        )
        evidence = Evidence.of_samples(run)
    summary: dict[str, Any] = run.summary
    return Checked(
        clean=int(run.samples["clean_correct"].sum()),
        reported=len(evidence.reported),
        right=sorted(evidence.standing - evidence.fooled),
        forwards=int(summary["check_forwards"]),
        verdict=str(summary["verdict"]),
        mechanism=summary["mechanism"],
        seconds=round(time.perf_counter() - began, 1),
    )


def _loaded(case: Case) -> tuple[Network, Tensor, Tensor]:
    network = case.build()
    return network, network.images[: case.count].clone(), network.labels[: case.count].clone()


class _Counted(nn.Module):
    """The network, counting the rows that it answers."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.rows = net, 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.rows += len(x)
        logits: Tensor = self.net(x)
        return logits
