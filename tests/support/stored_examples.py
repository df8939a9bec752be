"""Adversarial examples as attack libraries save them, by their own code, on a small network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPS = 0.1


@dataclass(frozen=True)
class Subject:
    """A network with its images, and the files of a folder.

    Attributes:
        model: trained a little on digits.
        images: `(n, 1, 8, 8)`; like `labels`, not trained on.
        folder: of the saved examples.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    folder: Path

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        return self.images, self.labels

    def robust(self, examples: Tensor) -> float:
        """The share that the network still classifies correctly."""
        with torch.no_grad():
            return float((self.model(examples).argmax(1) == self.labels).float().mean())


def subject(folder: Path, count: int = 40) -> Subject:
    """A linear network after some steps of training: attacks take seconds."""
    from support.digits import TRAINING, digits

    images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(300):
            rows = torch.randint(0, TRAINING, (100,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    held = slice(TRAINING, TRAINING + count)
    return Subject(model.eval(), images[held].contiguous(), labels[held], folder)


def autoattack(made: Subject) -> Tensor:
    """AutoAttack's standard version, saved as its `examples/eval.py` saves: a pair here."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(made.model, norm="Linf", eps=EPS, version="standard", device="cpu")
    attack.square.n_queries = 100
    found = attack.run_standard_evaluation(*made.data, batch_size=len(made.images))
    torch.save({"adv_complete": found}, made.folder / "autoattack.pth")
    torch.save({"adv_complete": found[0]}, made.folder / "autoattack-old.pth")
    torch.save(found[0], made.folder / "robustbench.pt")
    return found[0]


def autoattack_individual(made: Subject) -> None:
    """Two parts of AutoAttack, each on all images: with `--individual`."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(
        made.model, norm="Linf", eps=EPS, version="custom", attacks=["apgd-ce", "apgd-dlr"],
        device="cpu",
    )  # fmt: skip
    attack.apgd.n_iter = 10
    found = attack.run_standard_evaluation_individual(*made.data, batch_size=len(made.images))
    torch.save(found, made.folder / "individual.pth")


def torchattacks_pgd(made: Subject, name: str, **how: object) -> None:
    """PGD of torchattacks, by its own `save`."""
    import torchattacks

    attack = torchattacks.PGD(made.model, eps=EPS, alpha=0.02, steps=10)
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*made.data), 16)
    attack.save(loader, save_path=str(made.folder / name), verbose=False, **how)


def foolbox_pgd(made: Subject) -> None:
    """What Foolbox's PGD returns for two radii, saved whole; and for the larger, as NumPy's."""
    import foolbox
    import numpy as np

    attack, wrapped = (
        foolbox.attacks.LinfPGD(steps=10, rel_stepsize=0.2),
        foolbox.PyTorchModel(made.model, (0, 1)),
    )
    torch.manual_seed(0)
    found = attack(wrapped, *made.data, epsilons=[EPS / 2, EPS])
    torch.save(found, made.folder / "foolbox.pt")
    raw, clipped, success = (part[-1].numpy() for part in found)
    np.savez(made.folder / "foolbox.npz", raw=raw, clipped=clipped, success=success)
