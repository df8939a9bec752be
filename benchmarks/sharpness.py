"""The closed form against the naive leave-one-out log-sum-exp, and against a forward pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import interleaved
from flatguard.geometry.sharpness import log_sum_p_one_minus_p


def naive(logits: Tensor) -> Tensor:
    """log Σ p (1 − p) with log(1 − p_j) from the log-sum-exp of all other logits, for every j."""
    z = logits.double()
    k = z.shape[1]
    others = z[:, None, :].expand(-1, k, -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(float("-inf"))
    log_one_minus = others.logsumexp(dim=2) - z.logsumexp(dim=1, keepdim=True)
    return (z.log_softmax(dim=1) + log_one_minus).logsumexp(dim=1)


def main() -> None:
    """Print one line for each shape."""
    torch.manual_seed(0)
    for n, k, repeats in ((128, 10, 50), (128, 100, 20), (128, 1000, 4)):
        logits = torch.randn(n, k) * 10
        assert torch.allclose(log_sum_p_one_minus_p(logits), naive(logits), atol=1e-9)
        ratio = interleaved(
            {"ours": partial(log_sum_p_one_minus_p, logits)}, partial(naive, logits), repeats
        )["ours"]
        doubles = n * k * k * 8 / 2**20
        print(f"log κ at {n} × {k}, against naive ({doubles:.0f} MB a copy): {ratio}")


if __name__ == "__main__":
    main()
