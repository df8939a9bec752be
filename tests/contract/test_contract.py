"""Every attack of every library under the recorder: it runs, unnoticed, and no row is misassigned.

`FLATGUARD_WRITE_DOCS=1 pytest tests/contract` writes `docs/attacks.md` from what was seen.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from sklearn.datasets import load_digits
from support.sample_ids import SampleIds
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flatguard
from flatguard.attacks import build_attack, list_attacks
from flatguard.attacks.attack import Attack, AttackInfo
from flatguard.attacks.monitor import Monitor
from flatguard.geometry.budget import Budget

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "attacks.md"
RADIUS = {"Linf": 0.2, "L2": 1.5, "L1": 8.0, "L0": 20.0, "none": None}
SHORT = {
    "steps": 5, "n_iter": 5, "n_queries": 30, "max_iterations": 10, "binary_search_steps": 2,
    "n_restarts": 2, "restarts": 2, "popsize": 3, "nb_sample": 4, "max_batch_size": 2,
    "directions": 3, "repeats": 5, "num_translations": 2, "num_rotations": 2,
    "initial_gradient_eval_steps": 5, "max_gradient_eval_steps": 5, "population": 3, "N": 2,
    "m": 2, "eot_iter": 2, "noise_batch_size": 2,
}  # fmt: skip
"""Fewer steps where an attack has such an argument; the contract is about calls, not success."""

FALL_AT_ONCE = {
    ("standard", "L1"),
    *((name, norm) for name in ("plus", "rand") for norm in ("L2", "L1")),
}
"""Their thousands of queries cannot be cut, so the radius is so large that few images are left for
the later parts, which have their own cases. `standard` in L2 goes to the end."""

GRADIENT_FREE = {"SparseFool", "OnePixel", "Pixle", "PointwiseAttack", "BoundaryAttack"}
INFOS = {info.name: info for info in list_attacks()}
CASES = [(name, norm) for name, info in INFOS.items() for norm in info.norms]


@dataclass
class Subject:
    """A small convolutional network trained on scikit-learn's digits, and eight test images."""

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    training: TensorDataset


@pytest.fixture(scope="session")
def subject() -> Subject:
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1)
    labels = torch.tensor(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(8):
            for chosen in torch.randperm(1500).split(100):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                optimiser.step()
    model.eval().requires_grad_(True)
    assert (model(images[1500:]).argmax(1) == labels[1500:]).float().mean() > 0.85
    first = TensorDataset(images[:200], labels[:200])
    return Subject(model, images[1500:1508].contiguous(), labels[1500:1508], first)


class Binarized(nn.Module):
    """What BinarizationRefinementAttack is made for: a model that looks at black and white."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hard = (x >= 0.5).to(x.dtype)
        return self.model(x + (hard - x).detach())


class FromObjects(Attack):
    """MultiAttack and LGV, which no name alone can build, as a Python user builds them."""

    training: Any = None

    def _run(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, seed: int,
        monitor: Monitor,
    ) -> torch.Tensor:  # fmt: skip
        if self.info.name.endswith("LGV"):
            generator = torch.Generator().manual_seed(0)
            loader = DataLoader(self.training, 50, shuffle=True, generator=generator)
            attack = torchattacks.LGV(
                model, loader, lr=0.01, epochs=1, nb_models_epoch=2,
                attack_class=torchattacks.BIM, eps=0.2, steps=2, verbose=False,
            )  # fmt: skip
            attack.collect_models()
        else:
            parts = [torchattacks.FGSM(model, eps=0.2), torchattacks.PGD(model, eps=0.2, steps=3)]
            attack = torchattacks.MultiAttack(parts)
        return attack(images, labels)

    def effective_args(self) -> dict[str, Any]:
        return {}


def make(info: AttackInfo, norm: str, subject: Subject) -> Attack:
    args = {name: value for name, value in SHORT.items() if name in info.parameters}
    if info.name == "foolbox:BinarizationRefinementAttack":
        args["threshold"] = 0.5
    radius = RADIUS[norm]
    if (info.name, norm) in FALL_AT_ONCE and radius is not None:
        radius *= 3.0
    budget = Budget(norm, radius)
    if info.needs:
        attack = FromObjects(info, budget, 10)
        attack.training = subject.training
        return attack
    return build_attack(info.name, budget, 10, args)


@dataclass
class Row:
    """One line of docs/attacks.md."""

    attack: str
    norm: str
    rows: int
    unassigned: int
    ways: dict[str, int]


@pytest.fixture(scope="session")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    if os.environ.get("FLATGUARD_WRITE_DOCS") and len(rows) == len(CASES):
        write_docs(rows)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_contract(name: str, norm: str, subject: Subject, table: list[Row]) -> None:
    model = subject.model
    if name == "foolbox:BinarizationRefinementAttack":
        model = Binarized(model).eval()
    attack = make(INFOS[name], norm, subject)
    x, y = subject.images, subject.labels
    bare = attack.perturb(model, x, y, seed=1).images

    state = as_found(model)
    truth: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    recorder = flatguard.Recorder(
        model, x, y, budget=attack.budget, order=attack.info.order, gradients=True
    )
    with recorder, true_samples(attack, model, truth, seen, recorder):
        recorded = attack.perturb(model, x, y, seed=1, monitor=recorder).images

    same_bits = bare.view(torch.int32) == recorded.view(torch.int32)  # NaN is itself, too
    assert same_bits.all(), "the recorder changed the attack"
    assert_same(state, as_found(model))
    frame = recorder.trajectory()
    found = frame["sample"].fillna(-1).to_numpy().astype(int)
    true = torch.cat(truth).numpy() if truth else np.empty(0, dtype=int)
    assert len(found) == len(true) == recorder.forwards - recorder.rows_aside
    if name != "foolbox:DatasetAttack":  # it calls on other samples' images in a row's place
        assert ((true < 0) | (true < len(x))).all()
        wrong = (found >= 0) & (true >= 0) & (found != true)
        assert not wrong.any(), f"{wrong.sum()} rows were given to the wrong sample"
    if len(found) and name.partition(":")[2] not in GRADIENT_FREE:
        near = in_reach(torch.cat(seen), x, attack.budget)
        missing = found < 0
        assert not (missing & (near == 1)).any(), "a row in reach of one image is unassigned"
        assert missing.sum() <= math.ceil(0.01 * len(found))
    ways = frame["assigned_by"].astype(str).value_counts().to_dict()
    table.append(Row(name, norm, len(found), int((found < 0).sum()), ways))


def in_reach(rows: torch.Tensor, images: torch.Tensor, budget: Budget) -> np.ndarray:
    """Of how many clean images each row is in reach, as flatguard/recording/attribution.py has it.

    `(m,)`; a reach is the radius, or half the distance from the nearest other image if that is
    more.
    """
    order = {"Linf": torch.inf, "L1": 1.0, "L0": 0.0}.get(budget.norm, 2.0)
    flat = images.flatten(1).double()
    between = torch.cdist(flat, flat, p=order).fill_diagonal_(torch.inf)
    reach = (between.min(1).values / 2).clamp(min=budget.eps or 0.0)
    distances = torch.cdist(rows.flatten(1).double(), flat, p=order)
    return np.asarray((distances <= reach * (1 + 1e-5)).sum(1))


class true_samples:
    """Carries sample numbers through the attack's operations, and notes those of every call."""

    def __init__(
        self,
        attack: Attack,
        model: nn.Module,
        truth: list[torch.Tensor],
        seen: list[torch.Tensor],
        recorder: flatguard.Recorder,
    ):
        self.attack, self.model, self.recorder = attack, model, recorder
        self.truth, self.seen = truth, seen

    def __enter__(self) -> None:
        run = self.attack._run

        def followed(model: Any, images: torch.Tensor, *rest: Any) -> torch.Tensor:
            ids = SampleIds(images)

            def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                if module is self.model and not self.recorder.is_aside:
                    self.truth.append(ids.of(inputs[0]))
                    self.seen.append(inputs[0].detach().clone())

            handle = self.model.register_forward_pre_hook(note, prepend=True)
            try:
                with ids:
                    return run(model, images, *rest)
            finally:
                handle.remove()

        self.attack._run = followed  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        del self.attack._run  # type: ignore[misc]


def as_found(model: nn.Module) -> dict[str, Any]:
    import random
    import sys

    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],
        "random": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "weights": [p.detach().clone() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "trace": sys.gettrace(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.items():
        if name == "weights":
            assert all(torch.equal(a, b) for a, b in zip(value, after[name], strict=True))
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            assert bool((value == after[name]).all()), name
        else:
            assert value == after[name], name


def write_docs(rows: list[Row]) -> None:
    lines = [
        "# Attacks under the recorder",
        "",
        "Made by `make docs-attacks`: every attack runs on a small network trained on "
        "scikit-learn's digits, eight images, few steps, once bare and once recorded. The "
        "adversarial examples are the same bits; no row went to a wrong sample, as sample numbers "
        "carried through the attack's own tensor operations show.",
        "",
        "Rows are what went through the model. They are assigned by the adapter's *declared* "
        "order, by a *unique* match, by *order* within a sorted subset, or by *sequence*; see "
        "`flatguard/recording/attribution.py`.",
        "",
        "| attack | norm | rows | unassigned | assigned by |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: CASES.index((r.attack, r.norm))):
        ways = ", ".join(f"{w} {c}" for w, c in sorted(row.ways.items()) if w != "unassigned" and c)
        needs = INFOS[row.attack].needs
        note = f" (built in Python: it needs {needs.split(';')[0]})" if needs else ""
        how = ways or "it calls no model"
        lines.append(
            f"| `{row.attack}`{note} | {row.norm} | {row.rows} | {row.unassigned} | {how} |"
        )
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text("\n".join(lines) + "\n", "utf-8")


def test_the_table_in_the_docs_names_every_attack() -> None:
    text = DOCS.read_text("utf-8")
    for name, norm in CASES:
        assert f"| `{name}`" in text, f"{name} is missing: make docs-attacks"
        assert norm in text
