"""The model that is shipped: a small network for scikit-learn's 8×8 digits."""

from torch import nn


def network() -> nn.Module:
    """Two convolutions and two linear layers; images in [0, 1], `(n, 1, 8, 8)`."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
