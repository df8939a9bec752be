"""Train the model in a few seconds, and write what a release consists of to `build/`.

`--logits 100` multiplies the last layer by 100: the same decisions, and hardly a gradient left.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from digits_model import network
from safetensors.torch import save_file
from sklearn.datasets import load_digits

EPS, STEPS, EPOCHS, TRAINED_ON = 0.1, 5, 12, 1000


def perturbed(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """PGD from a random point, as adversarial training does it (Madry et al. 2018)."""
    moved = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        moved.requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(net(moved), y), moved)
        moved = moved.detach() + EPS / 2 * slope.sign()
        moved = torch.clamp(moved, x - EPS, x + EPS).clamp(0, 1)
    return moved


def main() -> None:
    """Train, and write weights and the images that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logits", type=float, default=1.0, help="multiply the last layer")
    factor = parser.parse_args().logits
    torch.manual_seed(0)
    found = load_digits()
    order = torch.randperm(len(found.target))
    images = torch.tensor(found.images, dtype=torch.float32)[order, None] / 16
    labels = torch.tensor(found.target)[order].long()
    net = network()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINED_ON).split(50):
            moved = perturbed(net, images[rows], labels[rows])
            optimiser.zero_grad()
            F.cross_entropy(net(moved), labels[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        net[-1].weight.mul_(factor)
        net[-1].bias.mul_(factor)
    build = Path("build")
    build.mkdir(exist_ok=True)
    save_file(net.state_dict(), build / "digits.safetensors")
    kept = images[TRAINED_ON:].permute(0, 2, 3, 1).numpy()
    np.savez(build / "digits.npz", images=kept, labels=labels[TRAINED_ON:].numpy())


if __name__ == "__main__":
    main()
