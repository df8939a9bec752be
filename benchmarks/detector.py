"""What a sharpness threshold costs at inference: a forward pass with and without it."""

from __future__ import annotations

import torch

import flatguard
from benchmarks.masking_zoo import networks
from benchmarks.timing import interleaved
from flatguard.detection import SharpnessDetector
from flatguard.targets import prepare
from flatguard.targets.target import Target, make_target

REPEATS = 30
BATCH = 128


def main() -> None:
    """Print a ratio for each network that can be had here."""
    torch.set_num_threads(1)
    images = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, target in _targets(images):
        # So loose that noise calibrates it: only the price is measured.
        detector = SharpnessDetector(target, alpha=0.5).fit(images)

        def bare(target: Target = target) -> object:
            with torch.no_grad():
                return target.model(images)

        def guarded(detector: SharpnessDetector = detector) -> object:
            return detector.classify(images)

        print(f"{name:<16}{interleaved({'guarded': guarded}, bare, REPEATS)['guarded']}")


def _targets(images: torch.Tensor) -> list[tuple[str, Target]]:
    found = [("demo ResNet-18", flatguard.load_target("demo"))]
    if networks.missing("resnet20") is None:
        module = networks.load("resnet20").module
        found.append(("ResNet-20", make_target(module, "resnet20", "the real checkpoints")))
    return [(name, prepare(target, images[:4])) for name, target in found]


if __name__ == "__main__":
    main()
