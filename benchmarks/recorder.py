"""What recording costs: attacks under the recorder against the same attacks bare."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

import flatguard
from benchmarks.timing import interleaved
from flatguard.attacks import build_attack
from flatguard.geometry.budget import Budget
from flatguard.targets.datasets import load_dataset

REPEATS = 10
BUDGET = Budget("Linf", 8 / 255)
ATTACKS: dict[str, dict[str, int]] = {
    "torchattacks:PGD": {"steps": 5},
    "apgd-ce": {"n_iter": 5, "n_restarts": 1},
    "foolbox:LinfPGD": {"steps": 5},
    "square": {"n_queries": 5},
}


def main() -> None:
    """Print one line for each attack on the demo's ResNet-18."""
    model = flatguard.load_target("demo").model
    batch = load_dataset("demo").block(0, 20)
    for name, args in ATTACKS.items():
        attack = build_attack(name, BUDGET, 10, dict(args))

        bare = partial(attack.perturb, model, batch.images, batch.labels, seed=0)
        head = flatguard.Recorder(model, batch.images, batch.labels).head
        recorder = flatguard.Recorder(
            model, batch.images, batch.labels, head=head, budget=BUDGET,
            order=attack.info.order,
        )  # fmt: skip
        ratio = interleaved(recorded(recorder, bare), bare, REPEATS)
        print(f"{name} on ResNet-18, recorded against bare: {ratio}")


def recorded(recorder: flatguard.Recorder, run: Callable[[], object]) -> Callable[[], None]:
    """The same run inside the recorder, whose rows become a table."""

    def with_recorder() -> None:
        with recorder:
            run()
        recorder.trajectory()

    return with_recorder


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
